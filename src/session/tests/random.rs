//! Random client input and random results: one reply per request, in order, and nothing after a close.

use proptest::prelude::*;

use super::*;

/// A request, and the result of the actions that it leads to (0 = success, others = failure).
type Step = (usize, usize, u8);

const KEYS: [&str; 9] = [
    "client_bind",
    "client_refresh",
    "client_set_tag",
    "client_remove_tag",
    "room_join",
    "room_leave",
    "message",
    "call_invite",
    "",
];

fn data(which: usize) -> Entries {
    let all: [&[(&str, &str)]; 5] = [
        &[],
        &[("token", "t"), ("room", "r"), ("tag", "g"), ("to", "user:2"), ("content", "{\"a\":1}"), ("resume", "[]")],
        &[("token", ""), ("room", ""), ("tag", ""), ("to", ""), ("since", "")],
        &[("uid", "9"), ("room", "r"), ("to", "room:r"), ("deviceId", "d"), ("resume", "[[\"x\"]]"), ("since", "")],
        &[("room", "a,b"), ("to", "nobody"), ("id", "x"), ("resume", "[1]")],
    ];
    entries(all[which])
}

/// Simulates the node's result of an action; `None` if the action has none.
fn outcome(action: &Action, how: u8) -> Option<Input> {
    let no = || Refusal::new(if how == 2 { Code::UNAVAILABLE } else { Code::FORBIDDEN }, "no");
    let well = how == 0;
    Some(match action {
        Action::Admit(_) if how == 3 => Input::Admitted(Ok(admission("another"))),
        Action::Admit(_) => Input::Admitted(if well { Ok(admission("1074")) } else { Err(no()) }),
        Action::Bind(..) | Action::Rebind(..) => Input::Bound(if well || how == 3 { Ok(place()) } else { Err(no()) }),
        Action::Handle { .. } if how == 1 => Input::Handled(None),
        Action::Handle { .. } => {
            let code = if well { Code::OK } else { Code::INTERNAL };
            Input::Handled(Some(Answer { code, message: String::new(), data: Entries::new() }))
        }
        Action::Join(..) => Input::Joined(if well { Ok(join(true)) } else { Err(no()) }),
        Action::Leave(_) => Input::Left(well),
        Action::Publish(_) if how == 1 => Input::Published(Ok(dropped(1))),
        Action::Publish(_) if well => Input::Published(Ok(accepted(1, None))),
        Action::Publish(_) => Input::Published(Err(no())),
        Action::Reply(_) | Action::SetTag(_) | Action::Extend(_) | Action::Close(_) => return None,
    })
}

/// Sends a request, answers until the session returns no more actions, and collects the replies.
fn ask(session: &mut Client, (key, which, how): Step) -> (Vec<Reply>, bool) {
    let mut replies = Vec::new();
    let body = SendBody { key: KEYS[key].to_owned(), timestamp: 0, data: data(which) };
    let mut actions = std::collections::VecDeque::from(on(session, Input::Sent(body)));
    let mut is_closed = false;
    while let Some(action) = actions.pop_front() {
        assert!(!is_closed, "{action:?} after a close");
        if let Some(input) = outcome(&action, how) {
            actions.extend(on(session, input));
        }
        match action {
            Action::Reply(reply) => replies.push(reply),
            Action::Close(_) => is_closed = true,
            _ => {}
        }
    }
    (replies, is_closed)
}

proptest! {
    #[test]
    fn each_question_has_one_answer_and_the_user_never_changes(
        steps in proptest::collection::vec((0..KEYS.len(), 0..5_usize, 0..4_u8), 0..40),
    ) {
        let mut session = Client::new();
        let mut user: Option<Uid> = None;
        let mut is_over = false;
        for step in steps {
            let (replies, is_closed) = ask(&mut session, step);
            if is_over {
                prop_assert!(replies.is_empty() && !is_closed);
                continue;
            }
            prop_assert_eq!(replies.len(), 1, "{:?}", step);
            let expected = if is_closed { "client_handshake" } else { KEYS[step.0] };
            prop_assert_eq!(&replies[0].key, expected);
            prop_assert_eq!(replies[0].code.len(), 3);
            prop_assert!(!is_closed || session.is_closing());
            if let Some(user) = &user {
                prop_assert_eq!(session.uid(), Some(user));
            }
            user = session.uid().cloned();
            is_over = is_closed;
        }
    }
}

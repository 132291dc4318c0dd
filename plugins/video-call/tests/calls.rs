//! Calls from invitation to end, checked by replies and pushes. The built component must pass the same cases.

use skylark_plugin::{Alarms, Call, Handler, Identity, Message, Plugin, Reply, Target, kv, testing};
use video_call::{Settings, VideoCall, action};

const SETTINGS: &str = r#"
    address = "wss://media.example/{call}?kind={kind}&sig={hmac}"
    secret = "a secret of at least thirty-two bytes"
    ring = 30
    talk = 600
"#;

/// Users 1 and 2 are online with one connection each (11 and 12), user 3 with two (13 and 33).
fn plugin() -> VideoCall {
    for (uid, cid) in [("1", 11), ("2", 12), ("3", 13), ("3", 33)] {
        testing::connect(uid, cid);
    }
    VideoCall::start(toml::from_str(SETTINGS).expect("settings")).expect("a plugin")
}

fn ask_from(plugin: &mut VideoCall, uid: &str, cid: u64, key: &str, data: &[(&str, &str)]) -> Reply {
    let data = data.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
    let caller = Some(Identity { uid: uid.to_owned(), cid, device: None, channel: None });
    plugin.handle(&Call { key: key.to_owned(), data, caller, cid }).expect("an answer")
}

fn ask(plugin: &mut VideoCall, uid: &str, key: &str, data: &[(&str, &str)]) -> Reply {
    let cid = 10 + uid.parse::<u64>().expect("users are numbers here");
    ask_from(plugin, uid, cid, key, data)
}

fn invite(plugin: &mut VideoCall, caller: &str, callee: &str) -> String {
    let reply = ask(plugin, caller, "call_invite", &[("callee", callee)]);
    assert_eq!((reply.code.as_str(), reply.get("state")), ("200", Some("ringing")), "{reply:?}");
    reply.get("call").expect("a call").to_owned()
}

fn said(reply: &Reply) -> (&str, &str) {
    (&reply.code, &reply.message)
}

/// The one push to the other side: receiver and message. Pushes that only stop the ringing on other devices are left
/// out.
#[track_caller]
fn pushed() -> (String, Message) {
    let mut pushes: Vec<_> =
        testing::take_pushes().into_iter().filter(|(_, m)| value(m, "elsewhere").is_none()).collect();
    assert_eq!(pushes.len(), 1, "{pushes:?}");
    match pushes.pop() {
        Some((Target::User(uid), message)) => (uid, message),
        other => panic!("{other:?}"),
    }
}

fn value<'a>(message: &'a Message, key: &str) -> Option<&'a str> {
    message.content.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
}

#[test]
fn invite_accept_and_both_have_the_same_new_address() {
    let mut plugin = plugin();
    let call = invite(&mut plugin, "1", "2");
    let (to, message) = pushed();
    assert_eq!((to.as_str(), message.action.as_str()), ("2", action::VIDEO));
    assert_eq!((message.sender.as_str(), message.receiver.as_str()), ("1", "2"));
    assert_eq!(value(&message, "call"), Some(call.as_str()));
    assert_eq!((value(&message, "caller"), value(&message, "ring")), (Some("1"), Some("30")));

    let reply = ask(&mut plugin, "2", "call_accept", &[("call", &call)]);
    assert_eq!((said(&reply), reply.get("state")), (("200", "ok"), Some("accepted")));
    let address = reply.get("address").unwrap();
    assert!(address.starts_with(&format!("wss://media.example/{call}?kind=video&sig=")), "{address}");
    assert_eq!(address.rsplit('=').next().map(str::len), Some(64));
    let (to, message) = pushed();
    assert_eq!((to.as_str(), message.action.as_str()), ("1", action::ACCEPT));
    assert_eq!(value(&message, "address"), Some(address));

    let other = {
        ask(&mut plugin, "2", "call_hangup", &[("call", &call)]);
        pushed();
        invite(&mut plugin, "1", "2")
    };
    assert_ne!(other, call, "each call has an address of its own");
}

#[test]
fn a_voice_call_has_its_own_action() {
    let mut plugin = plugin();
    ask(&mut plugin, "1", "call_invite", &[("callee", "2"), ("kind", "voice")]);
    let (_, message) = pushed();
    assert_eq!((message.action.as_str(), value(&message, "kind")), (action::VOICE, Some("voice")));
}

#[test]
fn every_end_of_a_call_is_pushed_to_the_other_party() {
    for (who, key, data, accept, expected, state) in [
        ("2", "call_reject", None, false, ("1", action::REJECT), "rejected"),
        ("2", "call_reject", Some(("reason", "busy")), false, ("1", action::BUSY), "rejected"),
        ("1", "call_cancel", None, false, ("2", action::CANCEL), "cancelled"),
        ("1", "call_hangup", None, true, ("2", action::HANG_UP), "ended"),
        ("2", "call_hangup", None, true, ("1", action::HANG_UP), "ended"),
        ("1", "call_hangup", None, false, ("2", action::CANCEL), "cancelled"),
        ("2", "call_hangup", None, false, ("1", action::REJECT), "rejected"),
    ] {
        let mut plugin = plugin();
        let call = invite(&mut plugin, "1", "2");
        if accept {
            ask(&mut plugin, "2", "call_accept", &[("call", &call)]);
        }
        testing::take_pushes();
        let data: Vec<_> = [("call", call.as_str())].into_iter().chain(data).collect();
        let reply = ask(&mut plugin, who, key, &data);
        assert_eq!((said(&reply), reply.get("state")), (("200", "ok"), Some(state)), "{who} {key}");
        let (to, message) = pushed();
        assert_eq!((to.as_str(), message.action.as_str()), expected, "{who} {key}");
        assert_eq!(said(&ask(&mut plugin, "2", "call_accept", &[("call", &call)])).0, "408");
        invite(&mut plugin, "2", "1");
        testing::take_pushes();
        testing::with(|host| host.kv.clear());
    }
}

#[test]
fn call_to_or_from_an_offline_user_is_refused_with_404() {
    let mut plugin = plugin();
    assert_eq!(said(&ask(&mut plugin, "1", "call_invite", &[("callee", "9")])), ("404", "user 9 is offline"));
    let call = invite(&mut plugin, "1", "2");
    testing::take_pushes();
    testing::with(|host| host.online.remove("1"));
    assert_eq!(said(&ask(&mut plugin, "2", "call_accept", &[("call", &call)])), ("404", "user 1 is offline"));
    assert_eq!(testing::take_pushes(), []);
    assert!(testing::with(|host| host.kv.is_empty()), "nobody stays busy");
}

#[test]
fn user_in_a_call_is_busy_for_others() {
    let mut plugin = plugin();
    let call = invite(&mut plugin, "1", "2");
    testing::take_pushes();
    for round in ["rings", "is on"] {
        assert_eq!(
            said(&ask(&mut plugin, "3", "call_invite", &[("callee", "1")])),
            ("409", "user 1 is busy"),
            "{round}"
        );
        assert_eq!(
            said(&ask(&mut plugin, "3", "call_invite", &[("callee", "2")])),
            ("409", "user 2 is busy"),
            "{round}"
        );
        let reply = ask(&mut plugin, "1", "call_invite", &[("callee", "3")]);
        assert_eq!((said(&reply), reply.get("call")), (("409", "the caller is in another call"), Some(call.as_str())));
        assert_eq!(testing::take_pushes(), []);
        ask(&mut plugin, "2", "call_accept", &[("call", &call)]);
        testing::take_pushes();
    }
}

#[test]
fn repeated_invitation_returns_the_same_call() {
    let mut plugin = plugin();
    let call = invite(&mut plugin, "1", "2");
    testing::take_pushes();
    assert_eq!(invite(&mut plugin, "1", "2"), call);
    assert_eq!(testing::take_pushes(), [], "it rings once");
    let first = ask(&mut plugin, "2", "call_accept", &[("call", &call)]);
    testing::take_pushes();
    assert_eq!(ask(&mut plugin, "2", "call_accept", &[("call", &call)]), first);
    assert_eq!(testing::take_pushes(), []);
}

#[test]
fn users_who_invite_each_other_get_one_call() {
    let mut plugin = plugin();
    let call = invite(&mut plugin, "1", "2");
    testing::take_pushes();
    let reply = ask(&mut plugin, "2", "call_invite", &[("callee", "1")]);
    assert_eq!((reply.get("call"), reply.get("state")), (Some(call.as_str()), Some("accepted")));
    let (to, message) = pushed();
    assert_eq!((to.as_str(), message.action.as_str()), ("1", action::ACCEPT));
    assert_eq!(value(&message, "address"), reply.get("address"));
    assert_eq!(testing::with(|host| host.kv.len()), 3, "one call, two users");
}

#[test]
fn request_by_the_wrong_party_is_refused_with_403() {
    let mut plugin = plugin();
    let call = invite(&mut plugin, "1", "2");
    testing::take_pushes();
    for key in ["call_accept", "call_reject", "call_cancel", "call_hangup"] {
        assert_eq!(said(&ask(&mut plugin, "3", key, &[("call", &call)])), ("403", "not a party to this call"));
    }
    assert_eq!(said(&ask(&mut plugin, "1", "call_accept", &[("call", &call)])).0, "403");
    assert_eq!(said(&ask(&mut plugin, "1", "call_reject", &[("call", &call)])).0, "403");
    assert_eq!(said(&ask(&mut plugin, "2", "call_cancel", &[("call", &call)])).0, "403");
    ask(&mut plugin, "2", "call_accept", &[("call", &call)]);
    testing::take_pushes();
    assert_eq!(
        said(&ask(&mut plugin, "2", "call_reject", &[("call", &call)])),
        ("409", "the call was accepted: hang up")
    );
    assert_eq!(
        said(&ask(&mut plugin, "1", "call_cancel", &[("call", &call)])),
        ("409", "the call was accepted: hang up")
    );
    assert_eq!(testing::take_pushes(), [], "a no has no effect");
}

#[test]
fn late_answer_is_refused_with_408_and_frees_both_users() {
    let mut plugin = plugin();
    let call = invite(&mut plugin, "1", "2");
    testing::take_pushes();
    testing::advance(30_000);
    for key in ["call_accept", "call_reject", "call_hangup"] {
        assert_eq!(said(&ask(&mut plugin, "2", key, &[("call", &call)])), ("408", "too late: the call is over"));
    }
    assert_eq!(testing::take_pushes(), []);
    let next = invite(&mut plugin, "2", "1");
    ask(&mut plugin, "1", "call_accept", &[("call", &next)]);
    testing::advance(599_000);
    assert_eq!(said(&ask(&mut plugin, "3", "call_invite", &[("callee", "1")])).0, "409");
    testing::advance(1_000);
    invite(&mut plugin, "3", "1");
}

#[test]
fn answer_stops_the_ringing_of_the_users_other_devices() {
    let mut plugin = plugin();
    let call = invite(&mut plugin, "1", "3");
    testing::take_pushes();
    ask_from(&mut plugin, "3", 13, "call_accept", &[("call", &call)]);
    let pushes = testing::take_pushes();
    let (target, message) = &pushes[1];
    assert_eq!((target, message.action.as_str()), (&Target::user("3"), action::ACCEPT));
    assert_eq!((value(message, "elsewhere"), value(message, "address")), (Some("true"), None));
    let late = ask_from(&mut plugin, "3", 33, "call_accept", &[("call", &call)]);
    assert_eq!(said(&late), ("409", "the call was accepted on another device"));
}

#[test]
fn faults_of_the_client_are_told_by_name() {
    let mut plugin = plugin();
    for (key, data, expected) in [
        ("call_invite", vec![], ("400", "callee: expected a user, got none")),
        ("call_invite", vec![("callee", "1")], ("400", "callee: expected another user than the caller")),
        ("call_invite", vec![("callee", "2"), ("kind", "fax")], ("400", "kind: expected voice or video, got \"fax\"")),
        ("call_accept", vec![], ("400", "call: expected a call, got none")),
        ("call_accept", vec![("call", "nonsense")], ("404", "call \"nonsense\" does not exist")),
    ] {
        assert_eq!(said(&ask(&mut plugin, "1", key, &data)), expected);
    }
    let unbound = plugin.handle(&Call { key: "call_invite".into(), data: vec![], caller: None, cid: 5 }).unwrap();
    assert_eq!(said(&unbound), ("401", "bind first"));
}

#[test]
fn stale_key_of_an_ended_call_makes_no_user_busy() {
    let mut plugin = plugin();
    kv::set("user:2", b"0123456789abcdef0123456789abcdef", None).unwrap();
    invite(&mut plugin, "1", "2");
}

#[test]
fn settings_are_checked_when_it_starts() {
    let start = |from: &str, to: &str| {
        let settings: Settings = toml::from_str(&SETTINGS.replace(from, to)).unwrap();
        VideoCall::start(settings).map(|_| ()).unwrap_err()
    };
    assert!(start("{hmac}", "x").starts_with("settings.address: expected a text with {call} and {hmac}"));
    assert_eq!(
        start("a secret of at least thirty-two bytes", "short"),
        "settings.secret: expected at least 32 bytes, got 5"
    );
    assert_eq!(start("ring = 30", "ring = 0"), "settings.ring: expected 1 to 86400 seconds, got 0");
}

#[test]
fn the_manifest_that_is_shipped_starts() {
    let manifest: toml::Table = toml::from_str(include_str!("../../dist/video-call.toml")).unwrap();
    VideoCall::start(manifest["settings"].clone().try_into().unwrap()).unwrap();
}

/// Advances the clock and runs the due timers.
fn wait(plugin: &mut VideoCall, milliseconds: u64) {
    testing::advance(milliseconds);
    for (name, data) in testing::take_due_timers() {
        plugin.on_timer(&name, &data);
    }
}

#[test]
fn an_invitation_that_nobody_answers_ends_for_both() {
    let mut plugin = plugin();
    let call = invite(&mut plugin, "1", "2");
    pushed();
    wait(&mut plugin, 29_999);
    assert_eq!(testing::take_pushes(), []);
    wait(&mut plugin, 1);
    let told = testing::take_pushes();
    let users: Vec<_> = told.iter().map(|(to, _)| to.clone()).collect();
    assert_eq!(users, [Target::user("2"), Target::user("1")]);
    for (_, message) in &told {
        assert_eq!((message.action.as_str(), value(message, "reason")), (action::CANCEL, Some("timeout")));
        assert_eq!((value(message, "call"), value(message, "kind")), (Some(call.as_str()), Some("video")));
    }
    assert_eq!(said(&ask(&mut plugin, "2", "call_accept", &[("call", &call)])).0, "408");
    invite(&mut plugin, "2", "1");
}

#[test]
fn a_call_that_was_answered_or_ended_rings_no_more() {
    for (who, key) in [("2", "call_accept"), ("2", "call_reject"), ("1", "call_cancel"), ("1", "call_hangup")] {
        let mut plugin = plugin();
        let call = invite(&mut plugin, "1", "2");
        ask(&mut plugin, who, key, &[("call", &call)]);
        testing::take_pushes();
        wait(&mut plugin, 60_000);
        assert_eq!(testing::take_pushes(), [], "{key}");
        testing::with(|host| host.kv.clear());
    }
}

#[test]
fn a_timer_that_was_late_harms_no_accepted_call() {
    let mut plugin = plugin();
    let call = invite(&mut plugin, "1", "2");
    ask(&mut plugin, "2", "call_accept", &[("call", &call)]);
    testing::take_pushes();
    plugin.on_timer(&call, b"video,1,2");
    assert_eq!(testing::take_pushes(), []);
    assert_eq!(ask(&mut plugin, "1", "call_hangup", &[("call", &call)]).code, "200");
}

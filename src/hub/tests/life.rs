//! Attach to detach: time limits, heartbeat, close, drain, lists.

use super::*;
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

fn ping(form: Form) -> Vec<u8> {
    protocol::encode(form, ServerFrame::Ping).unwrap().to_vec()
}

fn close_frame(why: Disconnect) -> Vec<u8> {
    websocket::close(why).to_vec()
}

#[tokio::test(start_paused = true)]
async fn silent_connection_is_pinged_and_closed_after_three_missed_pings() {
    let hub = start(&settings());
    let (a, pipe) = bound(&hub, "a", TCP).await;
    sleep(24 * SECOND).await;
    assert!(pipe.written().is_empty());
    sleep(2 * SECOND).await;
    assert_eq!(pipe.written(), ping(TCP));
    a.reset_missed_pings();
    sleep(25 * SECOND).await;
    assert_eq!(pipe.written(), ping(TCP).repeat(2));
    sleep(25 * SECOND).await;
    assert_eq!((pipe.written(), a.closed()), (ping(TCP).repeat(3), None));
    sleep(25 * SECOND).await;
    assert_eq!(a.closed(), Some(Disconnect::HEARTBEAT_MISSED));
    assert_eq!((pipe.written(), pipe.shutdowns()), (ping(TCP).repeat(3), vec![false]), "TCP has no close frame");
    sleep(11 * SECOND).await;
    assert_eq!(pipe.shutdowns(), [false, true], "who does not answer the end is cut");
}

#[tokio::test(start_paused = true)]
async fn write_postpones_the_next_ping() {
    let hub = start(&settings());
    let (_a, pipe) = bound(&hub, "a", YUNQUE).await;
    let run = frames(&["x"]);
    for _ in 0..10 {
        sleep(20 * SECOND).await;
        push(&hub, Target::Everyone, &run).await;
    }
    assert_eq!(pipe.written(), run.bytes(YUNQUE).repeat(10));
    sleep(26 * SECOND).await;
    assert!(pipe.written().ends_with(&ping(YUNQUE)));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_before_the_form_is_known() {
    let hub = start(&Settings { unbound: 400 * SECOND, ..settings() });
    let (a, pipe) = attach(&hub, None).await;
    sleep(101 * SECOND).await;
    assert!(pipe.written().is_empty());
    a.set_form(JSON);
    sleep(26 * SECOND).await;
    assert_eq!(pipe.written(), ping(JSON));
}

#[tokio::test(start_paused = true)]
async fn unbound_connection_is_closed_at_its_limit_which_extensions_move_within_bounds() {
    let hub = start(&settings());
    let (late, late_pipe) = attach(&hub, Some(YUNQUE)).await;
    let (more, _) = attach(&hub, Some(YUNQUE)).await;
    let (less, _) = attach(&hub, Some(YUNQUE)).await;
    let (known, _) = bound(&hub, "a", YUNQUE).await;
    more.extend_unbound(Duration::from_secs(3_600));
    less.extend_unbound(Duration::from_secs(5));
    let ticker = keep_alive([&late, &more, &known]);
    sleep(8 * SECOND).await;
    assert_eq!(less.closed(), Some(Disconnect::UNBOUND));
    sleep(36 * SECOND).await;
    assert_eq!(late.closed(), None);
    sleep(3 * SECOND).await;
    assert_eq!(late.closed(), Some(Disconnect::UNBOUND));
    assert!(late_pipe.written().ends_with(&close_frame(Disconnect::UNBOUND)));
    sleep(250 * SECOND).await;
    assert_eq!(more.closed(), None);
    sleep(6 * SECOND).await;
    assert_eq!((more.closed(), known.closed()), (Some(Disconnect::UNBOUND), None));
    ticker.abort();
}

/// Answers the PINGs of these clients.
fn keep_alive<const N: usize>(connections: [&Connection; N]) -> tokio::task::JoinHandle<()> {
    let connections = connections.map(Clone::clone);
    tokio::spawn(async move {
        loop {
            connections.iter().for_each(Connection::reset_missed_pings);
            sleep(SECOND).await;
        }
    })
}

#[tokio::test(start_paused = true)]
async fn expired_token_closes_connection_unless_renewed() {
    let hub = start(&settings());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let until = |seconds| Binding { expires: Some(now + seconds), ..binding("a", None) };
    let (short, short_pipe) = attach(&hub, Some(YUNQUE)).await;
    let (renewed, _) = attach(&hub, Some(YUNQUE)).await;
    let (past, _) = attach(&hub, Some(YUNQUE)).await;
    hub.bind(&short, until(5));
    hub.bind(&renewed, until(5));
    hub.bind(&past, Binding { expires: Some(1), ..binding("a", None) });
    assert!(!hub.bind(&renewed, until(20)).first);
    sleep(3 * SECOND).await;
    assert_eq!((short.closed(), past.closed()), (None, Some(Disconnect::TOKEN_EXPIRED)));
    sleep(5 * SECOND).await;
    assert_eq!((short.closed(), renewed.closed()), (Some(Disconnect::TOKEN_EXPIRED), None));
    assert_eq!(short_pipe.written(), close_frame(Disconnect::TOKEN_EXPIRED));
    sleep(16 * SECOND).await;
    assert_eq!(renewed.closed(), Some(Disconnect::TOKEN_EXPIRED));
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_takes_nothing_for_too_long_is_a_slow_consumer() {
    let hub = start(&settings());
    let (a, stuck) = bound(&hub, "a", YUNQUE).await;
    let (b, sips) = bound(&hub, "b", YUNQUE).await;
    stuck.allow(Some(0));
    sips.allow(Some(0));
    let run = frames(&["a text of some length, so that a sip is a part of it"]);
    push(&hub, Target::Everyone, &run).await;
    for _ in 0..3 {
        sleep(6 * SECOND).await;
        sips.allow(Some(1));
    }
    assert_eq!((a.closed(), b.closed()), (Some(Disconnect::SLOW_CONSUMER), None));
    assert!(stuck.written().is_empty() && stuck.shutdowns().is_empty());
    sleep(6 * SECOND).await;
    assert_eq!(stuck.shutdowns(), [true], "the close frame did not get out either");
    assert_eq!((a.pending(), sips.written().len()), (Load::default(), 3));
}

#[tokio::test(start_paused = true)]
async fn close_flushes_sends_the_reason_and_shuts_the_writing_half() {
    let hub = start(&settings());
    let (a, pipe) = bound(&hub, "a", YUNQUE).await;
    let run = frames(&["x"]);
    push(&hub, Target::Everyone, &run).await;
    assert!(a.send(run.bytes(YUNQUE).clone()).await);
    a.close(Disconnect::KICKED).await;
    a.close(Disconnect::RESTART).await;
    assert!(!a.send(run.bytes(YUNQUE).clone()).await);
    assert_eq!(push(&hub, Target::Everyone, &run).await, delivered(0));
    assert_eq!(a.closed(), Some(Disconnect::KICKED));
    let expected = [run.bytes(YUNQUE).repeat(2), close_frame(Disconnect::KICKED)].concat();
    assert_eq!((pipe.written(), pipe.shutdowns()), (expected, vec![false]));
    assert_eq!(hub.detach(&a).await, Detached { last: true, rooms: Vec::new() });
    hub.wait_flushed().await;
    assert_eq!(pipe.shutdowns(), [false, true]);
    sleep(60 * SECOND).await;
    assert_eq!(pipe.shutdowns(), [false, true], "what is gone has no time limit");
}

#[tokio::test(start_paused = true)]
async fn closing_connection_with_a_blocked_socket_is_cut_after_the_write_timeout() {
    let hub = start(&settings());
    let (a, pipe) = bound(&hub, "a", YUNQUE).await;
    pipe.allow(Some(3));
    let run = frames(&["hello"]);
    push(&hub, Target::Everyone, &run).await;
    a.close(Disconnect::RESTART).await;
    sleep(9 * SECOND).await;
    assert!(pipe.shutdowns().is_empty());
    sleep(3 * SECOND).await;
    assert_eq!((pipe.shutdowns(), pipe.written().len()), (vec![true], 3));
}

#[tokio::test(start_paused = true)]
async fn detach_writes_queued_frames_and_removes_user_and_rooms() {
    let hub = start(&settings());
    let (a, pipe) = bound(&hub, "a", YUNQUE).await;
    let (b, _) = bound(&hub, "a", YUNQUE).await;
    join(&hub, &a, &room("r"));
    join(&hub, &a, &room("s"));
    let run = frames(&["x"]);
    assert!(a.send(run.bytes(YUNQUE).clone()).await);
    assert_eq!(hub.detach(&a).await, Detached { last: false, rooms: vec![room("r"), room("s")] });
    assert_eq!(hub.detach(&a).await, Detached::default());
    assert!(!join(&hub, &a, &room("r")) && !hub.leave(&a, &room("r")));
    assert!(!hub.bind(&a, binding("c", None)).first);
    hub.wait_flushed().await;
    assert_eq!((pipe.written(), pipe.shutdowns()), (run.bytes(YUNQUE).to_vec(), vec![true]));
    assert!(hub.rooms().is_empty() && hub.connection(a.id()).is_none() && hub.user("c").is_empty());
    assert_eq!((hub.counts(), hub.connections().len()), ((1, 1), 1));
    assert!(hub.detach(&b).await.last);
    assert_eq!((hub.counts(), hub.connections().len()), ((0, 0), 0));
}

#[tokio::test(start_paused = true)]
async fn detach_does_not_wait_for_a_full_mailbox() {
    let hub = start(&Settings { shards: 1, queue: Queue { mailbox: 1, ..settings().queue }, ..settings() });
    let (a, pipe) = attach(&hub, Some(YUNQUE)).await;
    assert!(!hub.detach(&a).await.last, "the attach still fills the mailbox");
    sleep(2 * SECOND).await;
    assert_eq!(pipe.shutdowns(), [true]);
}

#[tokio::test(start_paused = true)]
async fn attach_beyond_connection_limit_is_refused() {
    let hub = start(&Settings { connections: 2, ..settings() });
    let (a, _) = attach(&hub, None).await;
    let (_b, _) = attach(&hub, None).await;
    assert!(hub.attach(Pipe::new(), None).await.is_none());
    hub.detach(&a).await;
    assert!(hub.attach(Pipe::new(), None).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn connections_spread_over_the_shards() {
    let hub = start(&Settings { shards: 4, ..settings() });
    let mut last = None;
    for _ in 0..40 {
        last = Some(attach(&hub, None).await.0);
    }
    let live = |hub: &Hub| hub.router.shards.iter().map(|h| h.live.load(Ordering::Relaxed)).collect::<Vec<_>>();
    assert_eq!(live(&hub), [10; 4]);
    hub.detach(&last.unwrap()).await;
    attach(&hub, None).await;
    assert_eq!(live(&hub), [10; 4]);
}

#[tokio::test(start_paused = true)]
async fn stopping_flushes_cuts_and_ends_the_shards() {
    let (hub, tasks) = Hub::new(&settings(), Arc::new(IdSequence::new(1, SystemTime::now())));
    let tasks: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
    let (a, pipe) = bound(&hub, "a", YUNQUE).await;
    let (b, stuck) = bound(&hub, "b", YUNQUE).await;
    stuck.allow(Some(1));
    let run = frames(&["x"]);
    assert!(a.send(run.bytes(YUNQUE).clone()).await && b.send(run.bytes(YUNQUE).clone()).await);
    hub.stop().await;
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(
        (pipe.written(), pipe.shutdowns(), stuck.shutdowns()),
        (run.bytes(YUNQUE).to_vec(), vec![true], vec![true])
    );
    assert!(!a.send(run.bytes(YUNQUE).clone()).await && hub.attach(Pipe::new(), None).await.is_none());
    assert_eq!(push(&hub, Target::Everyone, &run).await, delivered(0));
    a.close(Disconnect::RESTART).await;
    assert!(hub.detach(&a).await.last && hub.detach(&b).await.last);
}

/// The task's panic is for its joiner. This test checks that no client stays connected to a shard that never writes
/// again.
#[tokio::test(start_paused = true)]
async fn shard_that_panics_cuts_its_connections() {
    let (hub, tasks) = Hub::new(&settings(), Arc::new(IdSequence::new(1, SystemTime::now())));
    let mut tasks: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
    let ((a, bad), (_b, elsewhere)) = (bound(&hub, "a", YUNQUE).await, bound(&hub, "b", YUNQUE).await);
    let (_c, beside) = bound(&hub, "c", YUNQUE).await;
    hub.wait_flushed().await;
    bad.panic_at_write();
    let run = frames(&["x"]);
    assert!(a.send(run.bytes(YUNQUE).clone()).await);
    // These connections arrive behind the frame that makes the shard panic.
    attach(&hub, None).await;
    let (_d, late) = attach(&hub, None).await;
    assert!(tasks.remove(a.shard().index).await.unwrap_err().is_panic());
    assert_eq!((bad.shutdowns(), beside.shutdowns(), late.shutdowns()), (vec![true], vec![true], vec![true]));
    assert!(elsewhere.shutdowns().is_empty(), "the other shard goes on");
    assert_eq!(push(&hub, Target::User(uid("b")), &run).await, delivered(1));
    assert!(hub.detach(&a).await.last, "its reader has ended");
}

#[tokio::test(start_paused = true)]
async fn page_after_detaches_continues_after_last_connection() {
    let hub = start(&settings());
    let mut all = Vec::new();
    for i in 0..50 {
        all.push(bound(&hub, &i.to_string(), YUNQUE).await.0);
        attach(&hub, None).await;
    }
    let first = hub.page(0, 20);
    assert_eq!(
        first.iter().map(Connection::id).collect::<Vec<_>>(),
        all[..20].iter().map(Connection::id).collect::<Vec<_>>()
    );
    hub.detach(&all[19]).await;
    hub.detach(&all[25]).await;
    let second = hub.page(first[19].id().as_u64(), 100);
    let left: Vec<_> = all[20..25].iter().chain(&all[26..]).map(Connection::id).collect();
    assert_eq!(second.iter().map(Connection::id).collect::<Vec<_>>(), left);
    assert!(hub.page(u64::MAX, 10).is_empty());
}

#[tokio::test(start_paused = true)]
async fn connections_of_a_user_share_the_text_of_user_and_room() {
    let hub = start(&settings());
    let (a, _) = bound(&hub, "1074", YUNQUE).await;
    let (b, _) = bound(&hub, "1074", YUNQUE).await;
    let text = |connection: &Connection| connection.binding().unwrap().uid.as_str().as_ptr();
    assert_eq!(text(&a), text(&b));
    join(&hub, &a, &room("r"));
    join(&hub, &b, &room("r"));
    assert_eq!(a.rooms()[0].as_str().as_ptr(), b.rooms()[0].as_str().as_ptr());
    a.set_tag(Some("vip".to_owned()));
    assert_eq!((a.tag().as_deref(), b.tag()), (Some("vip"), None));
}

#[tokio::test(start_paused = true)]
async fn room_of_a_hundred_empties_in_any_order() {
    let hub = start(&settings());
    let mut members = Vec::new();
    for i in 0..100 {
        members.push(bound(&hub, &i.to_string(), YUNQUE).await.0);
        assert!(join(&hub, &members[i], &room("r")));
    }
    assert_eq!((hub.room("r").len(), hub.rooms()), (100, vec![(room("r"), 100)]));
    for (gone, i) in (0..100).map(|i| (i * 37) % 100).enumerate() {
        assert!(hub.leave(&members[i], &room("r")));
        assert_eq!(hub.room("r").len(), 99 - gone);
    }
    assert!(hub.rooms().is_empty());
}

#[tokio::test(start_paused = true)]
async fn connections_share_one_text_of_their_user_and_of_their_room() {
    let hub = start(&settings());
    let ((a, _), (b, _)) = (bound(&hub, "a", YUNQUE).await, bound(&hub, "a", JSON).await);
    let [one, other] = [&a, &b].map(|connection| connection.binding().unwrap().uid.as_str().as_ptr());
    assert_eq!(one, other);
    assert!([&a, &b].iter().all(|connection| join(&hub, connection, &room("r"))));
    let [one, other] = [&a, &b].map(|connection| connection.rooms()[0].as_str().as_ptr());
    assert_eq!(one, other);
}

#[tokio::test(start_paused = true)]
async fn membership_ends_at_the_end_of_its_terms() {
    let hub = start(&settings());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let until = |seconds| JoinTerms { uid: None, until: Some(now + seconds) };
    let (a, _) = bound(&hub, "a", YUNQUE).await;
    let (b, _) = bound(&hub, "b", YUNQUE).await;
    assert_eq!(hub.join(&a, &room("short"), until(5)), Joined::New);
    assert_eq!(hub.join(&a, &room("renewed"), until(5)), Joined::New);
    assert_eq!(hub.join(&a, &room("renewed"), until(15)), Joined::Already);
    assert_eq!(hub.join(&b, &room("lifted"), until(5)), Joined::New);
    assert_eq!(hub.join(&b, &room("lifted"), JoinTerms::default()), Joined::Already);
    assert_eq!(hub.join(&b, &room("lifted"), until(5)), Joined::Already);
    assert_eq!(hub.join(&b, &room("left"), until(5)), Joined::New);
    assert!(hub.leave(&b, &room("left")));
    let other = uid("b");
    assert_eq!(hub.join(&a, &room("r"), JoinTerms { uid: Some(&other), until: None }), Joined::Gone);
    assert_eq!(a.membership_ends(&room("renewed")), Some(true));
    assert_eq!((b.membership_ends(&room("lifted")), b.membership_ends(&room("left"))), (Some(false), None));

    let begun = tokio::time::Instant::now();
    for (ended, seconds) in [("short", 5), ("renewed", 15)] {
        let connections = hub.memberships_ended().await;
        assert!(matches!(&connections[..], [one] if one.is(&a)), "{connections:?}");
        assert_eq!(hub.leave_ended(&a), [room(ended)]);
        assert!(begun.elapsed() > (seconds - 1) * SECOND && begun.elapsed() <= (seconds + 3) * SECOND);
    }
    assert_eq!((a.rooms(), b.rooms()), (vec![], vec![room("lifted")]));
    assert!(hub.leave_ended(&a).is_empty() && hub.leave_ended(&b).is_empty());
}

//! Deliveries: targets, receipts, coalescing, limits, blocked and broken sockets.

use super::*;

#[tokio::test(start_paused = true)]
async fn each_target_is_delivered_once_and_counted() {
    let hub = start(&settings());
    let (a1, a1_pipe) = attach(&hub, Some(YUNQUE)).await;
    assert!(hub.bind(&a1, binding("a", Some("phone"))).first);
    let (a2, a2_pipe) = attach(&hub, Some(JSON)).await;
    assert!(!hub.bind(&a2, binding("a", None)).first);
    let (b, b_pipe) = bound(&hub, "b", TCP).await;
    let (_unbound, unbound_pipe) = attach(&hub, Some(YUNQUE)).await;
    let lobby = room("lobby");
    assert!(join(&hub, &a1, &lobby) && join(&hub, &b, &lobby) && !join(&hub, &b, &lobby));
    let run = frames(&["hello"]);

    let offline = |n, who: &[&str]| Receipt { offline: uids(who).to_vec(), ..delivered(n) };
    assert_eq!(push(&hub, Target::Connection(a1.id()), &run).await, delivered(1));
    assert_eq!(push(&hub, Target::Device(uid("a"), Device::parse("phone").unwrap()), &run).await, delivered(1));
    assert_eq!(push(&hub, Target::Device(uid("a"), Device::parse("tablet").unwrap()), &run).await, offline(0, &["a"]));
    assert_eq!(push(&hub, Target::User(uid("a")), &run).await, delivered(2));
    assert_eq!(push(&hub, Target::Users(uids(&["a", "b", "a", "c", "c"])), &run).await, offline(3, &["c"]));
    assert_eq!(push(&hub, Target::Room(lobby), &run).await, delivered(2));
    assert_eq!(push(&hub, Target::Room(room("empty")), &run).await, delivered(0));
    assert_eq!(push(&hub, Target::Everyone, &run).await, delivered(3));
    assert_eq!(push(&hub, Target::EveryoneBut(uids(&["a", "c"])), &run).await, delivered(1));
    assert_eq!(push(&hub, Target::Connection(ConnectionId::new(1).unwrap()), &run).await, delivered(0));
    assert_eq!(push(&hub, Target::ConnectionOf(uid("b"), a1.id()), &run).await, offline(0, &["b"]), "it is a's");
    let gone = Target::ConnectionOf(uid("a"), ConnectionId::new(1).unwrap());
    assert_eq!(push(&hub, gone, &run).await, offline(0, &["a"]));
    assert_eq!(push(&hub, Target::ConnectionOf(uid("b"), b.id()), &run).await, delivered(1));
    hub.wait_flushed().await;
    assert_eq!(a1_pipe.written(), run.bytes(YUNQUE).repeat(6));
    assert_eq!(a2_pipe.written(), run.bytes(JSON).repeat(3));
    assert_eq!(b_pipe.written(), run.bytes(TCP).repeat(5));
    assert!(unbound_pipe.written().is_empty());
}

#[tokio::test(start_paused = true)]
async fn repeated_users_of_a_long_list_are_delivered_once() {
    let hub = start(&settings());
    let (_a, pipe) = bound(&hub, "7", YUNQUE).await;
    let names: Vec<String> = (0..200).map(|i| (i % 40).to_string()).collect();
    let run = frames(&["x"]);
    let receipt = push(&hub, Target::Users(names.iter().map(|n| uid(n)).collect()), &run).await;
    assert_eq!((receipt.delivered, receipt.offline.len()), (1, 39));
    hub.wait_flushed().await;
    assert_eq!(&pipe.written(), run.bytes(YUNQUE));
}

#[tokio::test(start_paused = true)]
async fn the_publisher_is_left_out_and_is_not_offline() {
    let hub = start(&settings());
    let (a, a_pipe) = bound(&hub, "a", YUNQUE).await;
    let (b, b_pipe) = bound(&hub, "b", YUNQUE).await;
    join(&hub, &a, &room("r"));
    join(&hub, &b, &room("r"));
    let run = frames(&["hello"]);
    let but_a = |target| FrameRun { no_echo: Some(a.id()), ..to(target, &run) };
    let batch = vec![but_a(Target::Room(room("r"))), but_a(Target::Everyone), but_a(Target::User(uid("a")))];
    assert_eq!(hub.route(batch).await, [delivered(1), delivered(1), delivered(0)]);
    hub.wait_flushed().await;
    assert!(a_pipe.written().is_empty());
    assert_eq!(b_pipe.written(), run.bytes(YUNQUE).repeat(2));
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_one_write_a_connection_in_its_order() {
    let hub = start(&settings());
    let (a, a_pipe) = bound(&hub, "a", YUNQUE).await;
    let (_b, b_pipe) = bound(&hub, "b", YUNQUE).await;
    join(&hub, &a, &room("r"));
    let runs: Vec<_> = ["1", "2", "3", "4"].map(|text| frames(&[text, text])).into();
    let batch = vec![
        to(Target::User(uid("a")), &runs[0]),
        to(Target::Everyone, &runs[1]),
        to(Target::Room(room("r")), &runs[2]),
        to(Target::User(uid("a")), &runs[3]),
    ];
    let receipts = hub.route(batch).await;
    assert_eq!(receipts, [delivered(1), delivered(2), delivered(1), delivered(1)], "counts are connections");
    hub.wait_flushed().await;
    let expected: Vec<u8> = runs.iter().flat_map(|run| run.bytes(YUNQUE).to_vec()).collect();
    assert_eq!((a_pipe.written(), a_pipe.writes()), (expected, 1));
    assert_eq!((b_pipe.written(), b_pipe.writes()), (runs[1].bytes(YUNQUE).to_vec(), 1));
    let totals = hub.totals();
    assert_eq!((totals.writes, totals.frames), (2, 10));
}

#[tokio::test(start_paused = true)]
async fn messages_queued_in_mailbox_are_written_in_one_call() {
    let hub = start(&Settings { shards: 1, ..settings() });
    let (_a, pipe) = bound(&hub, "a", YUNQUE).await;
    hub.wait_flushed().await;
    let run = frames(&["x"]);
    for _ in 0..50 {
        assert_eq!(push(&hub, Target::User(uid("a")), &run).await, delivered(1));
    }
    hub.wait_flushed().await;
    assert_eq!((pipe.written(), pipe.writes()), (run.bytes(YUNQUE).repeat(50), 1));
}

#[tokio::test(start_paused = true)]
async fn blocked_socket_resumes_in_order_without_delaying_others() {
    let hub = start(&Settings { shards: 1, ..settings() });
    let (_a, slow) = bound(&hub, "a", YUNQUE).await;
    let (_b, quick) = bound(&hub, "b", YUNQUE).await;
    slow.allow(Some(7));
    let runs: Vec<_> = (0..20).map(|i| frames(&[&format!("message {i}")])).collect();
    for run in &runs {
        assert_eq!(push(&hub, Target::Everyone, run).await, delivered(2));
    }
    let expected: Vec<u8> = runs.iter().flat_map(|run| run.bytes(YUNQUE).to_vec()).collect();
    assert_eq!(quick.written(), expected);
    assert_eq!(slow.written(), expected[..7]);
    for _ in 0..expected.len() / 5 {
        slow.allow(Some(5));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    slow.allow(None);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(slow.written(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_is_counted_and_closes_the_connection() {
    let run = frames(&["0123456789"]);
    let size = run.bytes(YUNQUE).len();
    let bounds = Queue { bytes: 3 * size, ..settings().queue };
    let hub = start(&Settings { queue: bounds, ..settings() });
    let (a, pipe) = bound(&hub, "a", YUNQUE).await;
    pipe.allow(Some(2));
    for expected in [1, 1, 1] {
        assert_eq!(push(&hub, Target::User(uid("a")), &run).await, delivered(expected));
        hub.wait_flushed().await;
    }
    let full = Receipt { full: 1, ..Receipt::default() };
    assert_eq!(push(&hub, Target::User(uid("a")), &run).await, full, "not delivered, and not offline");
    assert_eq!(a.closed(), Some(Disconnect::SLOW_CONSUMER));
    let offline = Receipt { offline: vec![uid("a")], ..Receipt::default() };
    assert_eq!(push(&hub, Target::User(uid("a")), &run).await, offline, "a closing connection is none");
    assert!(!a.send(run.bytes(YUNQUE).clone()).await);

    pipe.allow(None);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let close = websocket::close(Disconnect::SLOW_CONSUMER);
    assert_eq!(pipe.written(), [run.bytes(YUNQUE), &close[..]].concat(), "the begun frame ends, then the reason");
    assert_eq!(pipe.shutdowns(), [false]);
    assert_eq!(a.pending(), Load::default());
}

#[tokio::test(start_paused = true)]
async fn fan_out_counts_full_queues_and_delivers_to_the_others() {
    let run = frames(&["0123456789"]);
    let hub = start(&Settings { queue: Queue { frames: 2, ..settings().queue }, ..settings() });
    let mut pipes = Vec::new();
    for i in 0..10 {
        let (connection, pipe) = bound(&hub, &i.to_string(), JSON).await;
        join(&hub, &connection, &room("r"));
        pipes.push(pipe);
    }
    pipes[3].allow(Some(0));
    for (n, full) in [(10, 0), (10, 0), (9, 1), (9, 0)] {
        let receipt = push(&hub, Target::Room(room("r")), &run).await;
        assert_eq!(receipt, Receipt { full, ..delivered(n) });
    }
    assert_eq!(pipes[4].written(), run.bytes(JSON).repeat(4));
}

#[tokio::test(start_paused = true)]
async fn batch_beyond_queue_size_does_not_close_fast_consumer() {
    let hub = start(&Settings { shards: 1, queue: Queue { frames: 4, ..settings().queue }, ..settings() });
    let (a, pipe) = bound(&hub, "a", YUNQUE).await;
    let run = frames(&["x"]);
    let batch = (0..100).map(|_| to(Target::User(uid("a")), &run)).collect();
    let receipts = hub.route(batch).await;
    assert!(receipts.iter().all(|receipt| *receipt == delivered(1)), "{receipts:?}");
    assert_eq!(a.closed(), None);
    hub.wait_flushed().await;
    assert_eq!(pipe.written(), run.bytes(YUNQUE).repeat(100));
}

#[tokio::test(start_paused = true)]
async fn an_empty_queue_takes_one_run_of_any_size() {
    let hub = start(&Settings { queue: Queue { bytes: 10, ..settings().queue }, ..settings() });
    let (_a, pipe) = bound(&hub, "a", YUNQUE).await;
    let run = frames(&["much longer than ten bytes"]);
    assert_eq!(push(&hub, Target::User(uid("a")), &run).await, delivered(1));
    hub.wait_flushed().await;
    assert_eq!(&pipe.written(), run.bytes(YUNQUE));
}

#[tokio::test(start_paused = true)]
async fn broken_socket_is_shut_down_and_gets_no_more_messages() {
    let hub = start(&settings());
    let (a, pipe) = bound(&hub, "a", YUNQUE).await;
    pipe.break_it();
    let run = frames(&["x"]);
    push(&hub, Target::User(uid("a")), &run).await;
    hub.wait_flushed().await;
    assert_eq!((pipe.shutdowns(), a.closed(), a.pending()), (vec![true], None, Load::default()));
    assert_eq!(push(&hub, Target::User(uid("a")), &run).await.offline, [uid("a")]);
    assert!(hub.detach(&a).await.last);
}

#[tokio::test(start_paused = true)]
async fn cancelled_route_releases_its_queue_slots() {
    let hub = start(&Settings { shards: 1, queue: Queue { mailbox: 1, ..settings().queue }, ..settings() });
    let (a, _pipe) = bound(&hub, "a", YUNQUE).await;
    hub.wait_flushed().await;
    let run = frames(&["x"]);
    let filler = hub.route(vec![to(Target::User(uid("a")), &run)]).await;
    assert_eq!(filler, [delivered(1)]);
    {
        let mut waiting = std::pin::pin!(hub.route(vec![to(Target::User(uid("a")), &run)]));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut cx).is_pending(), "the mailbox is full");
        assert_eq!(a.pending().frames(), 2);
    }
    assert_eq!(a.pending().frames(), 1);
    hub.wait_flushed().await;
    assert_eq!(a.pending(), Load::default());
}

#[tokio::test(start_paused = true)]
async fn connection_without_form_receives_no_published_messages() {
    let hub = start(&settings());
    let (a, pipe) = attach(&hub, None).await;
    hub.bind(&a, binding("a", None));
    let run = frames(&["x"]);
    assert_eq!(push(&hub, Target::User(uid("a")), &run).await.offline, [uid("a")]);
    assert_eq!(push(&hub, Target::Everyone, &run).await, delivered(0));
    a.set_form(JSON);
    a.set_form(YUNQUE);
    assert_eq!(a.form(), Some(JSON));
    assert_eq!(push(&hub, Target::Everyone, &run).await, delivered(1));
    assert_eq!(&pipe.written(), run.bytes(JSON));
}

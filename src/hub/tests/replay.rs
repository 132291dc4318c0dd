//! Replays: withheld runs, pages, and the filter after the end of a replay.

use std::pin::{Pin, pin};

use super::*;
use tokio::time::sleep;

fn own() -> StreamName {
    StreamName::User(uid("a"))
}

fn to_a(offsets: RangeInclusive<u64>) -> FrameRun {
    kept(Target::User(uid("a")), Epoch::new(1), offsets)
}

fn to_room(offsets: RangeInclusive<u64>) -> FrameRun {
    kept(Target::Room(room("r")), Epoch::new(1), offsets)
}

fn to_all(offsets: RangeInclusive<u64>) -> FrameRun {
    kept(Target::Everyone, Epoch::new(1), offsets)
}

fn bytes(runs: &[FrameRun]) -> Vec<u8> {
    runs.iter().flat_map(|run| run.frames.bytes(YUNQUE).to_vec()).collect()
}

/// Polls once.
fn is_pending<F: Future>(future: Pin<&mut F>) -> bool {
    future.poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

/// Starts a hub with one connection, of user `a` in room `r`.
async fn alone() -> (Arc<Hub>, Connection, Arc<Pipe>) {
    let hub = start(&settings());
    let (a, pipe) = bound(&hub, "a", YUNQUE).await;
    assert!(join(&hub, &a, &room("r")));
    (hub, a, pipe)
}

#[tokio::test(start_paused = true)]
async fn withheld_runs_are_sent_in_order_at_the_end() {
    let (hub, a, pipe) = alone().await;
    let room_stream = StreamName::Room(room("r"));
    assert!(hub.begin_replay(&a, vec![own(), room_stream.clone(), StreamName::Everyone]).await);
    let receipts = hub.route(vec![to_a(1..=1), to_room(1..=2), to_all(1..=1), to_a(2..=2), to_room(3..=3)]).await;
    assert_eq!(receipts, vec![delivered(1); 5], "a withheld run counts as delivered");
    hub.wait_flushed().await;
    assert_eq!((pipe.written(), a.pending()), (vec![], Load::default()));

    assert_eq!(hub.end_replay(&a, room_stream, position(0)).await, ReplayEnd::Done);
    assert_eq!(hub.end_replay(&a, own(), position(0)).await, ReplayEnd::Done);
    assert_eq!(hub.end_replay(&a, StreamName::Everyone, position(0)).await, ReplayEnd::Done);
    hub.route(vec![to_a(3..=3), to_room(4..=4), to_all(2..=2)]).await;
    hub.wait_flushed().await;
    let expected =
        [to_room(1..=2), to_room(3..=3), to_a(1..=1), to_a(2..=2), to_all(1..=1), to_a(3..=3), to_room(4..=4)];
    assert_eq!(pipe.written(), [bytes(&expected), bytes(&[to_all(2..=2)])].concat());
    assert_eq!(a.pending(), Load::default());
}

#[tokio::test(start_paused = true)]
async fn begin_before_join_withholds_runs_of_the_room() {
    let hub = start(&settings());
    let (a, pipe) = bound(&hub, "a", YUNQUE).await;
    assert!(hub.begin_replay(&a, vec![StreamName::Room(room("r"))]).await);
    assert!(join(&hub, &a, &room("r")));
    hub.route(vec![to_room(5..=5)]).await;
    hub.wait_flushed().await;
    assert!(pipe.written().is_empty());
    assert_eq!(hub.end_replay(&a, StreamName::Room(room("r")), position(4)).await, ReplayEnd::Done);
    hub.wait_flushed().await;
    assert_eq!(pipe.written(), bytes(&[to_room(5..=5)]));
}

#[tokio::test(start_paused = true)]
async fn end_drops_runs_up_to_its_position_and_cuts_the_run_across_it() {
    let (hub, a, pipe) = alone().await;
    let room_stream = StreamName::Room(room("r"));
    assert!(hub.begin_replay(&a, vec![own(), room_stream.clone()]).await);
    let run = |of: &dyn Fn(RangeInclusive<u64>) -> FrameRun| vec![of(1..=2), of(3..=3), of(4..=7), of(8..=8)];
    hub.route(run(&to_a)).await;
    hub.route(run(&to_room)).await;
    assert_eq!(hub.end_replay(&a, own(), position(5)).await, ReplayEnd::Done);
    hub.wait_flushed().await;
    assert_eq!(pipe.written(), bytes(&[to_a(6..=7), to_a(8..=8)]));
    assert_eq!(hub.end_replay(&a, room_stream, position(8)).await, ReplayEnd::Done);
    hub.wait_flushed().await;
    assert_eq!(pipe.written(), bytes(&[to_a(6..=7), to_a(8..=8)]));
}

#[tokio::test(start_paused = true)]
async fn other_streams_unkept_runs_and_replies_flow() {
    let (hub, a, pipe) = alone().await;
    let (_b, b_pipe) = bound(&hub, "b", YUNQUE).await;
    assert!(hub.begin_replay(&a, vec![own(), StreamName::Room(room("r"))]).await);
    let (unkept, reply) = (frames(&["unkept"]), frames(&["reply"]));
    assert!(a.send(reply.bytes(YUNQUE).clone()).await);
    let b_run = kept(Target::User(uid("b")), Epoch::new(1), 1..=1);
    let other_room = kept(Target::Room(room("s")), Epoch::new(1), 1..=1);
    assert!(join(&hub, &a, &room("s")));
    let batch =
        vec![to_a(1..=1), to_all(1..=1), to(Target::User(uid("a")), &unkept), b_run, other_room, to_room(1..=1)];
    hub.route(batch).await;
    hub.wait_flushed().await;
    let other_room = kept(Target::Room(room("s")), Epoch::new(1), 1..=1);
    let a_expected =
        [reply.bytes(YUNQUE).to_vec(), bytes(&[to_all(1..=1), to(Target::User(uid("a")), &unkept), other_room])];
    assert_eq!(pipe.written(), a_expected.concat());
    assert_eq!(b_pipe.written(), bytes(&[to_all(1..=1), kept(Target::User(uid("b")), Epoch::new(1), 1..=1)]));
}

#[tokio::test(start_paused = true)]
async fn late_runs_up_to_the_position_are_dropped_until_the_first_above_it() {
    let (hub, a, pipe) = alone().await;
    let room_stream = StreamName::Room(room("r"));
    assert!(hub.begin_replay(&a, vec![own(), room_stream.clone()]).await);
    hub.route(vec![to_a(1..=1)]).await;
    assert_eq!(hub.end_replay(&a, own(), position(5)).await, ReplayEnd::Done);
    assert_eq!(hub.end_replay(&a, room_stream, position(5)).await, ReplayEnd::Done);
    let receipts = hub.route(vec![to_a(2..=3), to_room(4..=5), to_a(4..=7), to_room(6..=6)]).await;
    assert_eq!(receipts, vec![delivered(1); 4]);
    hub.wait_flushed().await;
    assert_eq!(pipe.written(), bytes(&[to_a(6..=7), to_room(6..=6)]));
    // An engine that gives out offsets again has the same numbers for other messages.
    hub.route(vec![to_a(5..=5), to_room(1..=1)]).await;
    hub.wait_flushed().await;
    assert_eq!(pipe.written(), bytes(&[to_a(6..=7), to_room(6..=6), to_a(5..=5), to_room(1..=1)]));
    assert_eq!(a.pending(), Load::default());
}

#[tokio::test(start_paused = true)]
async fn filter_ends_after_30_s() {
    let (hub, a, pipe) = alone().await;
    assert!(hub.begin_replay(&a, vec![own()]).await);
    assert_eq!(hub.end_replay(&a, own(), position(5)).await, ReplayEnd::Done);
    sleep(Duration::from_secs(24)).await;
    hub.route(vec![to_a(5..=5)]).await;
    hub.wait_flushed().await;
    assert!(pipe.written().is_empty());
    sleep(Duration::from_secs(7)).await;
    let before = pipe.written();
    hub.route(vec![to_a(5..=5)]).await;
    hub.wait_flushed().await;
    assert_eq!(pipe.written(), [before, bytes(&[to_a(5..=5)])].concat());
}

#[tokio::test(start_paused = true)]
async fn runs_of_another_epoch_are_delivered() {
    let (hub, a, pipe) = alone().await;
    let other = |offsets| kept(Target::User(uid("a")), Epoch::new(2), offsets);
    assert!(hub.begin_replay(&a, vec![own()]).await);
    hub.route(vec![to_a(1..=2), other(1..=2)]).await;
    assert_eq!(hub.end_replay(&a, own(), position(3)).await, ReplayEnd::Done);
    hub.route(vec![to_a(3..=3), other(3..=3), to_a(3..=3), to_a(4..=4)]).await;
    hub.wait_flushed().await;
    assert_eq!(pipe.written(), bytes(&[other(1..=2), other(3..=3), to_a(4..=4)]));
}

#[tokio::test(start_paused = true)]
async fn cancel_sends_withheld_runs_and_ends_waiting_pages() {
    let (hub, a, pipe) = alone().await;
    assert!(hub.begin_replay(&a, vec![own(), StreamName::Everyone]).await);
    hub.route(vec![to_a(1..=2), to_all(1..=1)]).await;
    pipe.allow(Some(0));
    assert!(a.send(frames(&["reply"]).bytes(YUNQUE).clone()).await);
    hub.wait_flushed().await;
    let page = to_a(1..=1).frames.bytes(YUNQUE).clone();
    let mut waiting = pin!(hub.replay(&a, page.clone(), 1));
    assert!(is_pending(waiting.as_mut()));
    hub.cancel_replay(&a).await;
    assert!(!waiting.await, "its page waited behind the reply");
    pipe.allow(None);
    hub.route(vec![to_a(3..=3)]).await;
    hub.wait_flushed().await;
    let expected = [frames(&["reply"]).bytes(YUNQUE).to_vec(), bytes(&[to_a(1..=2), to_all(1..=1), to_a(3..=3)])];
    assert_eq!(pipe.written(), expected.concat());
    assert!(!hub.replay(&a, page, 1).await);
    assert_eq!(hub.end_replay(&a, own(), position(1)).await, ReplayEnd::Gone);
}

#[tokio::test(start_paused = true)]
async fn withheld_runs_of_a_former_user_and_of_a_left_room_are_dropped() {
    let (hub, a, pipe) = alone().await;
    let room_stream = StreamName::Room(room("r"));
    assert!(hub.begin_replay(&a, vec![own(), room_stream.clone()]).await);
    hub.route(vec![to_a(1..=1), to_room(1..=1)]).await;
    assert!(hub.leave(&a, &room("r")));
    hub.bind(&a, binding("b", None));
    assert_eq!(hub.end_replay(&a, room_stream.clone(), position(0)).await, ReplayEnd::Done);
    assert_eq!(hub.end_replay(&a, room_stream, position(0)).await, ReplayEnd::Gone);
    hub.cancel_replay(&a).await;
    hub.wait_flushed().await;
    assert!(pipe.written().is_empty());
}

#[tokio::test(start_paused = true)]
async fn replay_of_a_gone_connection_or_unknown_stream_is_refused() {
    let (hub, a, _pipe) = alone().await;
    assert_eq!(hub.end_replay(&a, own(), position(1)).await, ReplayEnd::Gone);
    assert!(!hub.replay(&a, to_a(1..=1).frames.bytes(YUNQUE).clone(), 1).await);
    assert!(hub.begin_replay(&a, vec![own()]).await && hub.begin_replay(&a, vec![own()]).await);
    assert_eq!(hub.end_replay(&a, StreamName::Everyone, position(1)).await, ReplayEnd::Gone);
    hub.detach(&a).await;
    assert!(!hub.begin_replay(&a, vec![own()]).await);
    assert_eq!(hub.end_replay(&a, own(), position(1)).await, ReplayEnd::Gone);
    hub.cancel_replay(&a).await;
}

#[tokio::test(start_paused = true)]
async fn pages_are_queued_one_by_one_after_queued_frames() {
    let (hub, a, pipe) = alone().await;
    assert!(hub.begin_replay(&a, vec![own()]).await);
    pipe.allow(Some(0));
    let (reply, live) = (frames(&["reply"]), frames(&["live"]));
    assert!(a.send(reply.bytes(YUNQUE).clone()).await);
    hub.wait_flushed().await;
    let pages = [to_a(1..=3), to_a(4..=6)].map(|run| run.frames.bytes(YUNQUE).clone());
    let mut first = pin!(hub.replay(&a, pages[0].clone(), 3));
    assert!(is_pending(first.as_mut()));
    let mut second = pin!(hub.replay(&a, pages[1].clone(), 3));
    assert!(is_pending(second.as_mut()));
    hub.wait_flushed().await;
    assert_eq!(a.pending().frames(), 1, "the pages wait for the reply");

    pipe.allow(Some(reply.bytes(YUNQUE).len() + 2));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(a.pending().frames(), 3, "the first page is queued");
    push(&hub, Target::User(uid("a")), &live).await;
    assert!(is_pending(first.as_mut()) && is_pending(second.as_mut()));
    pipe.allow(None);
    assert!(first.await && second.await);
    assert_eq!(a.pending(), Load::default());
    let expected = [reply.bytes(YUNQUE), &pages[0], live.bytes(YUNQUE), &pages[1]].map(|bytes| bytes.to_vec());
    assert_eq!(pipe.written(), expected.concat());
}

#[tokio::test(start_paused = true)]
async fn end_of_a_connection_answers_waiting_pages() {
    for detaches in [true, false] {
        let (hub, a, pipe) = alone().await;
        assert!(hub.begin_replay(&a, vec![own()]).await);
        hub.route(vec![to_a(2..=2)]).await;
        pipe.allow(Some(3));
        let page = to_a(1..=1).frames.bytes(YUNQUE).clone();
        let mut first = pin!(hub.replay(&a, page.clone(), 1));
        let mut second = pin!(hub.replay(&a, page.clone(), 1));
        assert!(is_pending(first.as_mut()) && is_pending(second.as_mut()));
        hub.wait_flushed().await;
        assert_eq!(a.pending().frames(), 1);
        if detaches {
            hub.detach(&a).await;
        } else {
            a.close(Disconnect::KICKED).await;
        }
        assert!(!first.await && !second.await);
        assert_eq!(hub.end_replay(&a, own(), position(1)).await, ReplayEnd::Gone);
        pipe.allow(None);
        sleep(Duration::from_millis(1)).await;
        assert_eq!(a.pending(), Load::default());
        let rest =
            if detaches { page[..3].to_vec() } else { [&page[..], &websocket::close(Disconnect::KICKED)].concat() };
        assert_eq!(pipe.written(), rest, "withheld runs are dropped");
    }
}

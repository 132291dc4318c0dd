//! Bounds of replays: buffers, queues and times.

use std::pin::{Pin, pin};

use super::*;
use crate::hub::load::Reservation;
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

fn own() -> StreamName {
    StreamName::User(uid("a"))
}

fn to_a(offsets: RangeInclusive<u64>) -> FrameRun {
    kept(Target::User(uid("a")), Epoch::new(1), offsets)
}

fn size() -> usize {
    to_a(1..=1).frames.bytes(YUNQUE).len()
}

/// Polls once.
fn is_pending<F: Future>(future: Pin<&mut F>) -> bool {
    future.poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

/// Starts a hub whose queues hold `bytes`, with a connection of user `a` under replay.
async fn alone(bytes: usize) -> (Arc<Hub>, Connection, Arc<Pipe>) {
    let hub = start(&Settings { queue: Queue { bytes, ..settings().queue }, ..settings() });
    let (a, pipe) = bound(&hub, "a", YUNQUE).await;
    assert!(hub.begin_replay(&a, vec![own()]).await);
    (hub, a, pipe)
}

#[tokio::test(start_paused = true)]
async fn overflowed_replay_is_read_again_without_loss() {
    let (hub, a, pipe) = alone(12 * size()).await;
    for offset in 1..=6 {
        assert_eq!(hub.route(vec![to_a(offset..=offset)]).await, [delivered(1)]);
    }
    assert_eq!(hub.end_replay(&a, own(), position(0)).await, ReplayEnd::Overflowed);
    hub.route(vec![to_a(7..=7), to_a(8..=8)]).await;
    // The second read sees everything up to 7.
    assert!(hub.replay(&a, to_a(1..=7).frames.bytes(YUNQUE).clone(), 7).await);
    assert_eq!(hub.end_replay(&a, own(), position(7)).await, ReplayEnd::Done);
    hub.route(vec![to_a(9..=9)]).await;
    hub.wait_flushed().await;
    let expected = [to_a(1..=7), to_a(8..=8), to_a(9..=9)].map(|run| run.frames.bytes(YUNQUE).to_vec());
    assert_eq!((pipe.written(), a.closed()), (expected.concat(), None));
}

#[tokio::test(start_paused = true)]
async fn third_overflow_closes_the_connection() {
    for many in [false, true] {
        let target = || if many { Target::Everyone } else { Target::User(uid("a")) };
        let run = |offset| kept(target(), Epoch::new(1), offset..=offset);
        let (hub, a, pipe) = alone(12 * run(1).frames.bytes(YUNQUE).len()).await;
        let stream = StreamName::of(&target()).unwrap();
        assert!(hub.begin_replay(&a, vec![stream.clone()]).await);
        let mut receipts = Vec::new();
        for round in 0..3 {
            for offset in 1..=5 {
                receipts.extend(hub.route(vec![run(offset)]).await);
            }
            hub.wait_flushed().await;
            let expected = if round < 2 { ReplayEnd::Overflowed } else { ReplayEnd::Gone };
            assert_eq!(hub.end_replay(&a, stream.clone(), position(0)).await, expected);
        }
        assert_eq!(a.closed(), Some(Disconnect::SLOW_CONSUMER));
        assert_eq!(pipe.written(), websocket::close(Disconnect::SLOW_CONSUMER));
        assert_eq!(receipts[..13], vec![delivered(1); 13]);
        let full = u32::from(many);
        let last = Receipt { full, ..delivered(1 - full) };
        assert_eq!(receipts[13], last, "the caller has counted a single connection before");
        assert_eq!(a.pending(), Load::default());
    }
}

#[tokio::test(start_paused = true)]
async fn empty_buffer_takes_one_run_of_any_size() {
    let (hub, a, pipe) = alone(size()).await;
    hub.route(vec![to_a(1..=1)]).await;
    assert_eq!(hub.end_replay(&a, own(), position(0)).await, ReplayEnd::Done);
    hub.wait_flushed().await;
    assert_eq!(pipe.written().len(), size());
}

#[tokio::test(start_paused = true)]
async fn buffer_without_a_written_page_for_10_s_closes_the_connection() {
    let (hub, a, pipe) = alone(100 * size()).await;
    for _ in 0..3 {
        sleep(8 * SECOND).await;
        assert!(hub.replay(&a, to_a(1..=1).frames.bytes(YUNQUE).clone(), 1).await);
    }
    hub.route(vec![to_a(2..=2)]).await;
    sleep(9 * SECOND).await;
    assert_eq!(a.closed(), None);
    sleep(4 * SECOND).await;
    assert_eq!(a.closed(), Some(Disconnect::SLOW_CONSUMER));
    let expected = [to_a(1..=1).frames.bytes(YUNQUE).repeat(3), websocket::close(Disconnect::SLOW_CONSUMER).to_vec()];
    assert_eq!(pipe.written(), expected.concat());
    assert_eq!(hub.end_replay(&a, own(), position(1)).await, ReplayEnd::Gone);
}

#[tokio::test(start_paused = true)]
async fn filter_does_not_age() {
    let (hub, a, _pipe) = alone(100 * size()).await;
    assert_eq!(hub.end_replay(&a, own(), position(1)).await, ReplayEnd::Done);
    sleep(20 * SECOND).await;
    assert_eq!(a.closed(), None);
}

#[tokio::test(start_paused = true)]
async fn page_to_a_socket_that_accepts_nothing_ends_with_the_write_timeout() {
    let queue = Queue { write_timeout: 3 * SECOND, ..settings().queue };
    let hub = start(&Settings { queue, ..settings() });
    let (a, pipe) = bound(&hub, "a", YUNQUE).await;
    assert!(hub.begin_replay(&a, vec![own()]).await);
    pipe.allow(Some(0));
    let begun = tokio::time::Instant::now();
    assert!(!hub.replay(&a, to_a(1..=1).frames.bytes(YUNQUE).clone(), 1).await);
    assert_eq!(a.closed(), Some(Disconnect::SLOW_CONSUMER));
    assert!(begun.elapsed() >= 3 * SECOND && begun.elapsed() < 6 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn page_without_queue_space_waits_and_does_not_close() {
    let hub = start(&Settings { shards: 1, queue: Queue { frames: 4, mailbox: 4, ..settings().queue }, ..settings() });
    let (a, pipe) = bound(&hub, "a", YUNQUE).await;
    assert!(hub.begin_replay(&a, vec![own()]).await);
    // Fills the queue by reservations whose runs are not in the mailbox yet.
    let live = frames(&["1", "2"]);
    let reservation = Reservation::new(a.clone(), Load::new(live.bytes(YUNQUE).len(), 2));
    assert!(reservation.is_reserved());
    let page = to_a(1..=3).frames.bytes(YUNQUE).clone();
    let mut waiting = pin!(hub.replay(&a, page.clone(), 3));
    assert!(is_pending(waiting.as_mut()));
    hub.wait_flushed().await;
    assert!(pipe.written().is_empty() && is_pending(waiting.as_mut()));
    drop(reservation);
    assert!(waiting.await, "the next tick tries again");
    assert_eq!((pipe.written(), a.closed(), a.pending()), (page.to_vec(), None, Load::default()));
}

#[tokio::test(start_paused = true)]
async fn withheld_runs_beyond_the_queue_close_a_blocked_connection() {
    let queue = Queue { frames: 4, ..settings().queue };
    let hub = start(&Settings { queue, ..settings() });
    let (a, pipe) = bound(&hub, "a", YUNQUE).await;
    assert!(hub.begin_replay(&a, vec![own()]).await);
    for offset in 1..=6 {
        hub.route(vec![to_a(offset..=offset)]).await;
    }
    pipe.allow(Some(0));
    assert_eq!(hub.end_replay(&a, own(), position(0)).await, ReplayEnd::Gone);
    assert_eq!(a.closed(), Some(Disconnect::SLOW_CONSUMER));
}

#[tokio::test(start_paused = true)]
async fn withheld_runs_beyond_the_queue_reach_a_fast_connection() {
    let queue = Queue { frames: 4, ..settings().queue };
    let hub = start(&Settings { queue, ..settings() });
    let (a, pipe) = bound(&hub, "a", YUNQUE).await;
    assert!(hub.begin_replay(&a, vec![own()]).await);
    for offset in 1..=9 {
        hub.route(vec![to_a(offset..=offset)]).await;
    }
    assert_eq!(hub.end_replay(&a, own(), position(0)).await, ReplayEnd::Done);
    hub.wait_flushed().await;
    assert_eq!((pipe.written().len(), a.closed()), (9 * size(), None));
}

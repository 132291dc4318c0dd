//! Bounds of resumes on a node with a slow store and slow clients.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::*;
use crate::broker::Unavailable;
use crate::broker::history::Page;
use crate::code::Code;
use crate::disconnect::Disconnect;
use crate::message::Target;
use crate::node::fake::lone::{Lone, LoneClient, run_ready};

/// A store whose reads end one by one, as the test allows. Each page is from the begin of its read.
struct GatedStore {
    store: Arc<dyn HistoryStore>,
    gate: Semaphore,
    reads: AtomicUsize,
}

impl HistoryStore for GatedStore {
    fn read(&self, name: &StreamName, range: Range) -> BoxFuture<'_, Result<Page, Unavailable>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let page = self.store.read(name, range);
        async move {
            let page = page.await;
            self.gate.acquire().await.unwrap().forget();
            page
        }
        .boxed()
    }

    fn forget(&self, name: &StreamName) -> BoxFuture<'_, Result<bool, Unavailable>> {
        self.store.forget(name)
    }
}

impl GatedStore {
    fn open(&self) {
        self.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }
}

/// A node whose store is gated.
async fn gated() -> (Lone, Arc<GatedStore>) {
    let mut gate = None;
    let lone = Lone::new(
        |_| {},
        |store| {
            let gated = Arc::new(GatedStore { store, gate: Semaphore::new(0), reads: AtomicUsize::new(0) });
            gate = Some(Arc::clone(&gated));
            gated
        },
    )
    .await;
    (lone, gate.expect("the node takes the store"))
}

fn lobby() -> Room {
    Room::parse("lobby").unwrap()
}

fn own() -> Vec<(ResumeStream, Option<Position>)> {
    vec![(ResumeStream::Own, None)]
}

/// Binds this many clients, each of a user of its own. They wait for the store.
async fn bind_many(lone: &mut Lone, count: usize) {
    for number in 0..count {
        let client = lone.attach().await;
        lone.spawn(async move {
            let answer = client.resume(&format!("u{number}"), &[], own()).await;
            assert!(answer.is_ok(), "{answer:?}");
        });
    }
    run_ready().await;
}

#[tokio::test(start_paused = true)]
async fn resume_beyond_256_waits_two_seconds_and_is_refused_before_any_effect() {
    let (mut lone, store) = gated().await;
    bind_many(&mut lone, limits::READS).await;
    assert_eq!(store.reads(), limits::READS);
    let (late, begin) = (lone.attach().await, Instant::now());
    let refusal = late.resume("late", &["lobby"], own()).await.unwrap_err();
    assert_eq!((refusal.code, begin.elapsed().as_secs()), (Code::UNAVAILABLE, 2));
    let retry = refusal.retry.expect("a busy node tells the time to wait");
    assert!((Duration::from_secs(1)..=Duration::from_secs(5)).contains(&retry), "{retry:?}");
    assert!(
        late.connection.binding().is_none() && late.connection.rooms().is_empty(),
        "the refused bind has no effect"
    );

    let waiting = lone.attach().await;
    lone.open_room("lobby");
    let client = waiting.clone();
    let resume = async move { client.resume("waiting", &[], own()).await };
    let (answer, ()) = tokio::join!(resume, async {
        sleep(Duration::from_secs(1)).await;
        store.open();
    });
    assert_eq!(answer.unwrap()[0][1], true, "a resume that becomes free within two seconds serves the next client");
    assert_eq!(waiting.join("lobby", None).await.unwrap()[1], true);
}

#[tokio::test(start_paused = true)]
async fn join_on_a_busy_node_is_refused_and_the_client_stays_outside() {
    let (mut lone, store) = gated().await;
    lone.open_room("lobby");
    store.gate.add_permits(1);
    let client = lone.attach().await;
    client.resume("a", &[], own()).await.unwrap();
    bind_many(&mut lone, limits::READS).await;
    let refusal = client.join("lobby", None).await.unwrap_err();
    assert_eq!(refusal.code, Code::UNAVAILABLE);
    assert!(refusal.retry.is_some() && client.connection.rooms().is_empty());
    assert_eq!(client.closed(), None);
}

#[tokio::test(start_paused = true)]
async fn concurrent_reads_from_one_position_share_a_result() {
    let (mut lone, store) = gated().await;
    for text in ["1", "2"] {
        lone.publish(Target::Room(lobby()), text).await;
    }
    store.gate.add_permits(1);
    let first = lone.attach().await;
    let answer = first.resume("first", &["lobby"], vec![(ResumeStream::Room(lobby()), None)]).await.unwrap();
    let top = Position {
        epoch: Epoch::parse(answer[0][2].as_str().unwrap()).unwrap(),
        offset: answer[0][3].as_u64().unwrap(),
        id: answer[0][4].as_i64().unwrap(),
    };
    lone.publish(Target::Room(lobby()), "3").await;

    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(lone.attach().await);
    }
    let before = store.reads();
    let since = || vec![(ResumeStream::Room(lobby()), Some(top))];
    let resumes = clients.iter().enumerate().map(|(number, client)| {
        let uid = format!("u{number}");
        async move { client.resume(&uid, &["lobby"], since()).await.unwrap() }
    });
    let (answers, ()) = tokio::join!(join_all(resumes), async {
        run_ready().await;
        // The running read cannot have this message, so nobody may join it any more.
        lone.publish(Target::Room(lobby()), "4").await;
        store.open();
    });
    assert!(answers.iter().all(|answer| answer[0][1] == true), "{answers:?}");
    assert_eq!(store.reads() - before, 2, "the first client's read, and one for all others");
    run_ready().await;
    for client in &clients {
        assert_eq!(texts(client), ["3", "4"]);
    }
}

#[tokio::test(start_paused = true)]
async fn caller_does_not_join_a_read_that_began_before() {
    let (lone, store) = gated().await;
    let name = StreamName::Room(lobby());
    let reads = Arc::new(SharedReads::new(Arc::clone(&store) as _));
    let read = |reads: &Arc<SharedReads>| {
        let (reads, name) = (Arc::clone(reads), name.clone());
        tokio::spawn(async move { reads.read(&name, range(Start::End, 9, false)).await.unwrap().messages.len() })
    };
    let abandoned = read(&reads);
    run_ready().await;
    abandoned.abort();
    assert!(abandoned.await.unwrap_err().is_cancelled());

    let before = read(&reads);
    run_ready().await;
    assert_eq!(store.reads(), 2, "a read whose callers are gone blocks nobody");
    lone.publish(Target::Room(lobby()), "1").await;
    let after = [read(&reads), read(&reads)];
    run_ready().await;
    store.open();
    assert_eq!(before.await.unwrap(), 0);
    for read in after {
        assert_eq!(read.await.unwrap(), 1);
    }
    assert_eq!(store.reads(), 3);
}

/// The first pages of slow clients fill the node's memory. Clients behind them wait longer than a replay may take without
/// progress, and are not closed.
#[tokio::test(start_paused = true)]
async fn pages_of_slow_clients_are_bounded_and_those_behind_wait() {
    let mut lone = Lone::new(|config| config.history.room.bytes = 16 << 20, |store| store).await;
    let text = "x".repeat(10 << 10);
    // A page has 256 KiB: 24 of these.
    for _ in 0..24 {
        lone.publish(Target::Room(lobby()), &text).await;
    }
    let full = limits::PAGES_BYTES / (24 * (10 << 10));
    let mut slow = Vec::new();
    for number in 0..2 * full {
        slow.push(resume_lobby(&mut lone, &format!("slow{number}"), Some(0)).await);
    }
    let behind = resume_lobby(&mut lone, "behind", None).await;
    sleep(Duration::from_secs(9)).await;
    assert_eq!((texts(&behind).len(), slow[0].closed(), behind.closed()), (0, None, None));
    sleep(Duration::from_secs(4)).await;
    assert_eq!((slow[0].closed(), behind.closed()), (Some(Disconnect::SLOW_CONSUMER), None));
    assert_eq!((texts(&behind).len(), slow[2 * full - 1].closed()), (0, None), "the second half has the memory");
    sleep(Duration::from_secs(12)).await;
    assert_eq!((texts(&behind).len(), behind.closed()), (24, None));
}

/// A client that resumes the room from its begin. Its socket accepts so many bytes.
async fn resume_lobby(lone: &mut Lone, uid: &str, bytes: Option<usize>) -> LoneClient {
    let client = lone.attach().await;
    let answer = client.resume(uid, &[], own()).await.unwrap();
    assert_eq!(answer[0][1], true);
    client.allow(bytes);
    lone.open_room("lobby");
    let epoch =
        lone.node.history_page(&StreamName::Room(lobby()), range(Start::End, 0, false)).await.unwrap().top.epoch;
    let answer = client.join("lobby", Some(Position { epoch, offset: 0, id: 0 })).await.unwrap();
    assert_eq!((&answer[1], &answer[5]), (&json!(true), &json!(24)), "{answer}");
    run_ready().await;
    client
}

fn texts(client: &LoneClient) -> Vec<String> {
    client.messages().into_iter().map(|message| message.text).collect()
}

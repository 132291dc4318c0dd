//! Several callers on several threads: every receiver gets each caller's sequence completely and in order.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use super::*;

const CALLERS: usize = 4;
const CONNECTIONS: usize = 40;
const ROUNDS: usize = 150;

/// Finds the `<caller.kind.number>` marks in the bytes of a socket, by caller and kind.
fn marks(bytes: &[u8]) -> HashMap<String, Vec<usize>> {
    let mut found: HashMap<String, Vec<usize>> = HashMap::new();
    for piece in bytes.split(|byte| *byte == b'<').skip(1) {
        let text = std::str::from_utf8(piece.split(|byte| *byte == b'>').next().unwrap()).unwrap();
        let (series, number) = text.rsplit_once('.').unwrap();
        found.entry(series.to_owned()).or_default().push(number.parse().unwrap());
    }
    found
}

/// One caller. Each round is a batch for a user, everyone, a room and two users, with one series of numbers each.
async fn call(hub: Arc<Hub>, caller: usize) -> u64 {
    let mut sum = 0;
    for round in 0..ROUNDS {
        let run = |kind: &str| frames(&[&format!("<{caller}.{kind}.{round}>")]);
        let user = |n: usize| uid(&(n % CONNECTIONS).to_string());
        let batch = vec![
            to(Target::User(user(caller)), &run("user")),
            to(Target::Everyone, &run("all")),
            to(Target::Room(room("r")), &run("room")),
            to(Target::Users(Arc::new([user(caller + 1), user(caller + 2)])), &run("users")),
        ];
        let receipts = hub.route(batch).await;
        assert!(receipts.iter().all(|receipt| receipt.full == 0 && receipt.offline.is_empty()), "{receipts:?}");
        sum += receipts.iter().map(|receipt| u64::from(receipt.delivered)).sum::<u64>();
    }
    sum
}

/// Attaches, joins, leaves and detaches connections until `done`.
async fn disturb(hub: Arc<Hub>, done: Arc<AtomicBool>) {
    while !done.load(Ordering::Relaxed) {
        let (guest, _pipe) = attach(&hub, Some(JSON)).await;
        join(&hub, &guest, &room("guests"));
        hub.bind(&guest, binding("guest", None));
        join(&hub, &guest, &room("guests"));
        hub.leave(&guest, &room("guests"));
        join(&hub, &guest, &room("guests"));
        hub.detach(&guest).await;
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn concurrent_callers_are_delivered_completely_and_in_order() {
    // Large enough that a blocked pipe never fills its queue.
    let queue = Queue { frames: 100_000, bytes: 1 << 30, mailbox: 8, ..settings().queue };
    let (hub, tasks) = Hub::new(&Settings { queue, ..settings() }, Arc::new(IdSequence::new(1, SystemTime::now())));
    let hub = Arc::new(hub);
    let shards: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
    let mut ends = Vec::new();
    for i in 0..CONNECTIONS {
        let (connection, pipe) = bound(&hub, &i.to_string(), if i % 2 == 0 { YUNQUE } else { TCP }).await;
        if i % 2 == 0 {
            assert!(join(&hub, &connection, &room("r")));
        }
        ends.push((connection, pipe));
    }
    let done = Arc::new(AtomicBool::new(false));
    let guests = tokio::spawn(disturb(Arc::clone(&hub), Arc::clone(&done)));
    let callers: Vec<_> = (0..CALLERS).map(|caller| tokio::spawn(call(Arc::clone(&hub), caller))).collect();
    while callers.iter().any(|caller| !caller.is_finished()) {
        for (_, pipe) in ends.iter().step_by(3) {
            pipe.allow(Some(50));
            tokio::task::yield_now().await;
        }
    }
    let mut promised = 0;
    for caller in callers {
        promised += caller.await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    guests.await.unwrap();
    ends.iter().for_each(|(_, pipe)| pipe.allow(None));
    while ends.iter().any(|(connection, _)| connection.pending() != Load::default()) {
        tokio::task::yield_now().await;
    }

    let rounds: Vec<usize> = (0..ROUNDS).collect();
    let mut received = 0;
    for (i, (_, pipe)) in ends.iter().enumerate() {
        let marks = marks(&pipe.written());
        received += marks.values().map(|numbers| numbers.len() as u64).sum::<u64>();
        for caller in 0..CALLERS {
            assert_eq!(marks[&format!("{caller}.all")], rounds);
            assert_eq!(marks.get(&format!("{caller}.room")), (i % 2 == 0).then_some(&rounds));
            assert_eq!(marks.get(&format!("{caller}.user")), (i == caller).then_some(&rounds));
            let named = i == caller + 1 || i == caller + 2;
            assert_eq!(marks.get(&format!("{caller}.users")), named.then_some(&rounds));
        }
    }
    // The guests also receive a share of the messages to everyone.
    assert!(received <= promised, "{received} of {promised}");
    assert!(hub.room("guests").is_empty());
    hub.stop().await;
    for shard in shards {
        shard.await.unwrap();
    }
}

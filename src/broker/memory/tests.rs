//! Publishing while the journal of the history fails: refused or delivered, and never delivered before it is written.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::broker::history::memory::tests::journal::Bench;
use crate::broker::history::memory::tests::{ALL, settings};
use crate::broker::history::{HistoryStore, Page};
use crate::config::{History as HistorySettings, StreamBounds};
use crate::message::{Message, Origin, Position, Publication, Retention, StreamName, Target};

/// Deliveries in order: id of the message, and its position.
#[derive(Default)]
struct Deliveries(Mutex<Vec<(i64, Option<Position>)>>);

impl Deliver for Deliveries {
    fn deliver(&self, batch: Batch, positions: Vec<Option<Position>>) -> BoxFuture<'_, Vec<Receipt>> {
        let position = |at: usize| positions.get(at).copied().flatten();
        let delivered = batch.iter().enumerate().map(|(at, envelope)| (envelope.message.id, position(at)));
        self.0.lock().extend(delivered);
        ready(batch.iter().map(|_| Receipt { delivered: 1, ..Receipt::default() }).collect()).boxed()
    }

    fn on_cluster_message(&self, _: &NodeId, _: Bytes) {}

    fn gap(&self) {}
}

fn broker(bench: &Bench) -> (Arc<MemoryBroker>, Arc<Deliveries>) {
    let deliveries = Arc::<Deliveries>::default();
    let node = NodeId::parse("n1").unwrap();
    let broker = MemoryBroker::new(node, Arc::clone(&deliveries) as _, Some(Arc::clone(&bench.history)));
    (Arc::new(broker), deliveries)
}

fn to(uid: &str, id: i64, history: Retention) -> Envelope {
    let message = Message { id, ..Message::default() };
    let target = Target::User(Uid::parse(uid).unwrap());
    Publication { history, ..Publication::new(message, target, Origin::Http) }.into_envelope(id.unsigned_abs(), 0)
}

async fn publish(broker: &MemoryBroker, envelope: Envelope) -> Fate {
    broker.publish([envelope].into()).await.remove(0)
}

async fn kept(bench: &Bench, uid: &str) -> Page {
    bench.history.read(&StreamName::User(Uid::parse(uid).unwrap()), ALL).await.unwrap()
}

#[tokio::test]
async fn full_disk_refuses_kept_messages_only() {
    let bench = Bench::of(settings());
    let (broker, deliveries) = broker(&bench);
    assert!(matches!(publish(&broker, to("a", 1, Retention::Configured)).await, Fate::Accepted { .. }));
    bench.fill(true);
    for id in [2, 3] {
        assert_eq!(publish(&broker, to("a", id, Retention::Configured)).await, Fate::Unavailable);
    }
    assert!(broker.faults()[0].contains("No space left"), "{:?}", broker.faults());
    assert!(matches!(publish(&broker, to("a", 4, Retention::No)).await, Fate::Accepted { .. }));
    bench.heal().await;
    assert!(broker.faults().is_empty());
    assert!(matches!(publish(&broker, to("a", 5, Retention::Configured)).await, Fate::Accepted { .. }));
    let delivered: Vec<i64> = deliveries.0.lock().iter().map(|(id, _)| *id).collect();
    assert_eq!(delivered, [1, 4, 5]);
}

#[tokio::test]
async fn full_disk_delivers_without_a_position_if_so_configured() {
    let bench = Bench::of(HistorySettings { on_failure: OnFailure::Deliver, ..settings() });
    let (broker, deliveries) = broker(&bench);
    bench.fill(true);
    for id in [1, 2] {
        let fate = publish(&broker, to("a", id, Retention::Configured)).await;
        let Fate::Accepted { positions, is_unkept, receipt, .. } = fate else { panic!("{fate:?}") };
        assert_eq!((positions.len(), is_unkept, receipt.unwrap().delivered), (0, true, 1));
    }
    assert!(broker.faults().is_empty(), "clients are served");
    assert_eq!(*deliveries.0.lock(), [(1, None), (2, None)]);
    bench.heal().await;
    assert!(kept(&bench, "a").await.messages.is_empty());
}

/// Publishers of one stream while the disk fails again and again: the stream has what was accepted, in the order of the
/// deliveries.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_has_the_accepted_messages_in_the_order_of_their_deliveries() {
    let user = StreamBounds { size: 10_000, bytes: 16 << 20, ..settings().user };
    let bench = Arc::new(Bench::of(HistorySettings { user, ..settings() }));
    let (broker, deliveries) = broker(&bench);
    let has_ended = Arc::new(AtomicBool::new(false));
    let (weather, end) = (Arc::clone(&bench), Arc::clone(&has_ended));
    let weather = tokio::spawn(async move {
        for _ in 0..20 {
            weather.fill(true);
            while weather.history.fault().is_none() {
                tokio::task::yield_now().await;
            }
            weather.heal().await;
        }
        end.store(true, Ordering::SeqCst);
    });
    let publisher = |number: i64| {
        let (broker, has_ended) = (Arc::clone(&broker), Arc::clone(&has_ended));
        async move {
            let mut accepted = Vec::new();
            for id in (number * 1_000_000..).take_while(|_| !has_ended.load(Ordering::SeqCst)) {
                match publish(&broker, to("a", id, Retention::Configured)).await {
                    Fate::Accepted { positions, .. } => accepted.push((id, Some(positions[0]))),
                    fate => assert_eq!(fate, Fate::Unavailable),
                }
                tokio::task::yield_now().await;
            }
            accepted
        }
    };
    let publishers: Vec<_> = (1..=4).map(|number| tokio::spawn(publisher(number))).collect();
    let mut accepted = Vec::new();
    for publisher in publishers {
        accepted.extend(publisher.await.unwrap());
    }
    weather.await.unwrap();
    let delivered = deliveries.0.lock().clone();
    let offsets: Vec<u64> = delivered.iter().map(|(_, position)| position.unwrap().offset).collect();
    assert_eq!(offsets, (1..=offsets.len() as u64).collect::<Vec<_>>());
    accepted.sort_by_key(|(_, position)| position.unwrap().offset);
    assert_eq!(accepted, delivered);
    let last = kept(&bench, "a").await;
    assert_eq!(last.top, delivered.last().unwrap().1.unwrap());
    let in_stream: Vec<i64> = last.messages.iter().map(|(_, kept)| kept.message.id).collect();
    let in_order: Vec<i64> = delivered.iter().take(in_stream.len()).map(|(id, _)| *id).collect();
    assert!(!in_stream.is_empty() && in_stream == in_order, "the stream differs from the deliveries");
}

//! Tests of the memory engine: a model of its streams, bounds, times, and the order of deliveries.

pub(in crate::broker) mod journal;

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::advance;

use super::*;
use crate::broker::history::{Missed, Start};
use crate::id::{Room, Uid};
use crate::message::{Message, Origin, Publication, Target};

pub(in crate::broker) fn settings() -> Settings {
    Settings::default()
}

fn user(uid: &str) -> StreamName {
    StreamName::User(Uid::parse(uid).unwrap())
}

fn envelope(id: i64, text: &str, history: Retention) -> Envelope {
    let message = Message { id, title: text.to_owned(), ..Message::default() };
    let target = Target::User(Uid::parse("a").unwrap());
    Publication { history, ..Publication::new(message, target, Origin::Http) }.into_envelope(id.unsigned_abs(), 0)
}

fn append(history: &MemoryHistory, name: &StreamName, id: i64) -> Position {
    let appended = history.append(name, &envelope(id, "", Retention::Configured), 1).unwrap();
    history.next(name);
    appended.position
}

fn after(position: Position) -> Range {
    Range { start: Start::After(position), limit: 1_000, reverse: false }
}

fn read_page(history: &MemoryHistory, name: &StreamName, range: Range) -> Page {
    history.page(name, range).0
}

pub(in crate::broker) const ALL: Range = Range { start: Start::End, limit: 1_000, reverse: false };

fn ids(page: &Page) -> Vec<i64> {
    page.messages.iter().map(|(_, kept)| kept.message.id).collect()
}

#[tokio::test(start_paused = true)]
async fn offsets_are_dense_and_a_position_is_continued() {
    let history = MemoryHistory::new(settings());
    let name = user("a");
    let empty = read_page(&history, &name, ALL);
    assert_eq!((empty.top.offset, empty.top.id, empty.messages.len()), (0, 0, 0));
    let positions: Vec<Position> = (11..14).map(|id| append(&history, &name, id)).collect();
    assert_eq!(positions.iter().map(|p| p.offset).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(ids(&read_page(&history, &name, after(empty.top))), [11, 12, 13]);
    assert_eq!(ids(&read_page(&history, &name, after(positions[1]))), [13]);
    let page = read_page(&history, &name, after(positions[2]));
    assert_eq!((ids(&page), page.top, page.missed), (Vec::new(), positions[2], None));
}

#[tokio::test(start_paused = true)]
async fn invalid_positions_are_told_with_their_reason() {
    let bounds = StreamBounds { size: 2, ..settings().user };
    let history = MemoryHistory::new(Settings { user: bounds, ..settings() });
    let name = user("a");
    let positions: Vec<Position> = (1..=4).map(|id| append(&history, &name, id)).collect();
    let missed = |position| read_page(&history, &name, after(position)).missed;
    assert_eq!(missed(positions[0]), Some(Missed::Trimmed));
    assert_eq!(missed(Position { offset: 0, id: 0, ..positions[0] }), Some(Missed::Trimmed));
    assert_eq!(missed(Position { id: 9, ..positions[2] }), Some(Missed::Fork));
    assert_eq!(missed(Position { id: 9, ..positions[3] }), Some(Missed::Fork));
    assert_eq!(missed(Position { offset: 5, ..positions[3] }), Some(Missed::Fork));
    assert_eq!(missed(Position { epoch: Epoch::new(1), ..positions[3] }), Some(Missed::Epoch));
    assert_eq!(missed(positions[2]), None);
}

#[tokio::test(start_paused = true)]
async fn forgotten_stream_begins_a_new_epoch() {
    let history = MemoryHistory::new(settings());
    let name = user("a");
    assert!(history.remove(&name).is_none());
    let before = append(&history, &name, 1);
    assert!(history.remove(&name).is_some());
    assert_eq!(read_page(&history, &name, after(before)).missed, Some(Missed::Epoch));
    let again = append(&history, &name, 2);
    assert_eq!(again.offset, 1);
    assert_ne!(again.epoch, before.epoch);
}

#[tokio::test(start_paused = true)]
async fn messages_expire_together_after_the_last_append() {
    let history = MemoryHistory::new(settings());
    let name = user("a");
    append(&history, &name, 1);
    advance(settings().user.ttl - Duration::from_secs(1)).await;
    let last = append(&history, &name, 2);
    advance(settings().user.ttl - Duration::from_secs(1)).await;
    assert_eq!(ids(&read_page(&history, &name, ALL)), [1, 2]);
    advance(Duration::from_secs(1)).await;
    let page = read_page(&history, &name, after(last));
    assert_eq!((ids(&page), page.missed), (Vec::new(), None), "nothing was missed");
}

#[tokio::test(start_paused = true)]
async fn longer_ttl_of_a_message_is_not_shortened_by_the_next() {
    let history = MemoryHistory::new(settings());
    let name = user("a");
    history.append(&name, &envelope(1, "", Retention::Ttl(3_600)), 1).unwrap();
    history.next(&name);
    append(&history, &name, 2);
    advance(Duration::from_secs(3_599)).await;
    assert_eq!(ids(&read_page(&history, &name, ALL)), [1, 2]);
    advance(Duration::from_secs(1)).await;
    assert!(read_page(&history, &name, ALL).messages.is_empty());
}

#[tokio::test(start_paused = true)]
async fn least_recently_appended_streams_are_forgotten_first() {
    let history = MemoryHistory::new(Settings { bytes: 64 << 10, ..settings() });
    for id in 1..=2_000 {
        let name = user(&format!("u{id}"));
        let big = envelope(id, &"x".repeat(500), Retention::Configured);
        history.append(&name, &big, 1).unwrap();
        history.next(&name);
    }
    let kept = (1..=2_000)
        .filter(|id| history.near(&user(&format!("u{id}"))).lock().streams.contains_key(&user(&format!("u{id}"))));
    let kept: Vec<i64> = kept.collect();
    assert!((1..128).contains(&kept.len()), "{kept:?}");
    assert!(kept.contains(&2_000));
    assert!(history.bytes.load(Ordering::Relaxed) <= 64 << 10);
}

#[tokio::test(start_paused = true)]
async fn reads_of_new_streams_evict_no_message() {
    let history = MemoryHistory::new(Settings { bytes: 64 << 10, ..settings() });
    let names: Vec<StreamName> = (0..100).map(|n| user(&format!("u{n}"))).collect();
    for (name, id) in names.iter().zip(1..) {
        append(&history, name, id);
    }
    for n in 0..2_000 {
        read_page(&history, &user(&format!("reader{n}")), ALL);
    }
    assert!(history.bytes.load(Ordering::Relaxed) <= 64 << 10);
    let kept = |name: &&StreamName| history.near(name).lock().streams.contains_key(*name);
    assert_eq!(names.iter().filter(kept).count(), names.len());
}

#[tokio::test(start_paused = true)]
async fn read_does_not_keep_a_stream_from_its_eviction() {
    let history = MemoryHistory::new(Settings { bytes: 64 << 10, ..settings() });
    let old = user("old");
    append(&history, &old, 1);
    for id in 2..=2_000 {
        read_page(&history, &old, ALL);
        append(&history, &user(&format!("u{id}")), id);
    }
    let page = read_page(&history, &old, ALL);
    assert_eq!((page.top.offset, page.messages.len()), (0, 0), "forgotten, and opened again by this read");
}

#[tokio::test(start_paused = true)]
async fn idle_node_removes_expired_messages_and_streams() {
    let history = Arc::new(MemoryHistory::new(settings()));
    let (name, opened) = (user("a"), user("b"));
    append(&history, &name, 1);
    read_page(&history, &opened, ALL);
    let sweeping = tokio::spawn(Arc::clone(&history).upkeep());
    let has = |name: &StreamName| history.near(name).lock().streams.contains_key(name);
    let full = history.bytes.load(Ordering::Relaxed);
    tokio::time::sleep(settings().user.ttl + 2 * SWEEP).await;
    assert!(history.bytes.load(Ordering::Relaxed) < full, "the message is gone");
    assert!(has(&name) && has(&opened), "positions stay");
    tokio::time::sleep(settings().ttl_max).await;
    assert!(!has(&name) && !has(&opened));
    assert_eq!(history.bytes.load(Ordering::Relaxed), 0);
    sweeping.abort();
}

#[tokio::test(start_paused = true)]
async fn pages_are_bounded_in_bytes_and_read_backwards() {
    let history = MemoryHistory::new(settings());
    let name = StreamName::Room(Room::parse("lobby").unwrap());
    for id in 1..=20 {
        history.append(&name, &envelope(id, &"x".repeat(60_000), Retention::Configured), 1).unwrap();
        history.next(&name);
    }
    let page = read_page(&history, &name, ALL);
    assert!(page.messages.len() < 6, "{}", page.messages.len());
    let newest = read_page(&history, &name, Range { reverse: true, limit: 2, ..ALL });
    assert_eq!(ids(&newest), [20, 19]);
    let (offset, kept) = &newest.messages[1];
    let position = Position { epoch: newest.top.epoch, offset: *offset, id: kept.message.id };
    let older = read_page(&history, &name, Range { start: Start::After(position), limit: 2, reverse: true });
    assert_eq!(ids(&older), [18, 17]);
}

#[test]
fn entry_takes_at_most_64_bytes_beside_its_body() {
    assert!(size_of::<KeptMessage>() <= 64, "{}", size_of::<KeptMessage>());
}

proptest! {
    /// Appends, forgets, waits and reads against a `Vec` per stream: a reader gets all messages after its position, or
    /// is told.
    #[test]
    fn readers_get_every_message_after_their_position_or_are_told(
        steps in prop::collection::vec((0u8..8, 0usize..3), 1..200),
        size in 1usize..12,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let bounds = StreamBounds { size, ..settings().user };
            let history = MemoryHistory::new(Settings { user: bounds, ..settings() });
            let names = ["a", "b", "c"].map(user);
            let mut model: [Vec<Position>; 3] = Default::default();
            for (id, (what, at)) in (1i64..).zip(steps) {
                let (name, all) = (&names[at], &mut model[at]);
                match what {
                    0 if history.remove(name).is_some() => all.clear(),
                    1 => {
                        advance(bounds.ttl).await;
                        model.iter_mut().for_each(|all| all.drain(..all.len().saturating_sub(1)).for_each(drop));
                    }
                    2..=5 => {
                        let position = append(&history, name, id);
                        assert!(all.last().is_none_or(|last| last.epoch != position.epoch || last.offset + 1 == position.offset));
                        all.push(position);
                    }
                    _ => {
                        for (index, position) in all.iter().enumerate() {
                            let page = read_page(&history, name, after(*position));
                            if page.missed.is_none() {
                                let missed: Vec<u64> = all[index + 1..].iter().map(|p| p.offset).collect();
                                assert_eq!(page.messages.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), missed);
                            } else {
                                assert!(all.len() - index > size || page.messages.is_empty());
                            }
                        }
                    }
                }
            }
        });
    }
}

#[tokio::test]
async fn waiting_envelopes_are_handed_over_in_the_order_of_their_offsets() {
    let history = Arc::new(MemoryHistory::new(settings()));
    let name = user("a");
    let turn = |id: i64, owner| history.append(&name, &envelope(id, "", Retention::Configured), owner).unwrap().turn;
    assert!(matches!(turn(1, 7), Turn::Own));
    assert!(matches!(turn(2, 7), Turn::Own), "one batch may append twice");
    assert!(matches!(turn(3, 8), Turn::Other(_)));
    assert!(matches!(turn(4, 7), Turn::Other(_)), "the owner queues behind others");
    let waiting = history.next(&name);
    assert_eq!(waiting.iter().map(|one| one.position.offset).collect::<Vec<_>>(), [3, 4]);
    assert!(matches!(turn(5, 9), Turn::Other(_)), "the turn has not ended");
    assert_eq!(history.next(&name).len(), 1);
    assert!(history.next(&name).is_empty());
    assert!(matches!(turn(6, 9), Turn::Own));
}

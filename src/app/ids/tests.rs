//! Random process lives on failing stores with a jumping clock: no id is issued twice.

use std::collections::BTreeMap;
use std::future::ready;
use std::time::UNIX_EPOCH;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;

/// Fate of one reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    Clear,
    /// The request fails.
    Away,
    /// The request succeeds, and the reply is lost.
    Mute,
}

/// One step of a process.
#[derive(Debug, Clone, Copy)]
enum Step {
    Take(usize),
    Reserve(Weather),
    Remind,
}

/// One process: clock at the start, its steps, and true if its last write is lost with it.
type Life = (u64, Vec<Step>, bool);

/// A store with the semantics of `ids.lua`: bound and size of the last block.
#[derive(Default)]
struct Store {
    held: Mutex<Option<(u64, u64)>>,
    before: Mutex<Option<(u64, u64)>>,
    weather: Mutex<Option<Weather>>,
}

impl IdStore for Store {
    fn reserve(&self, request: BlockRequest) -> BoxFuture<'_, Result<u64, Unavailable>> {
        let weather = self.weather.lock().unwrap_or(Weather::Clear);
        let away = || ready(Err(Unavailable { engine: "store", why: "away".to_owned() })).boxed();
        if weather == Weather::Away {
            return away();
        }
        let mut held = self.held.lock();
        let slack = held.filter(|_| request.is_start).map_or(0, |(_, last)| GROWTH * last);
        let begin = (held.map_or(request.floor, |(bound, _)| bound) + slack).max(request.from);
        let last = held.map_or(0, |(_, last)| last);
        *self.before.lock() = *held;
        let end = if request.is_start { begin } else { begin + request.count };
        *held = Some((end, if request.count > 0 { request.count } else { last }));
        if weather == Weather::Mute { away() } else { ready(Ok(begin)).boxed() }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let weather = prop_oneof![4 => Just(Weather::Clear), 1 => Just(Weather::Away), 1 => Just(Weather::Mute)];
    prop_oneof![
        6 => prop_oneof![1_usize..100, 1_000_usize..100_000].prop_map(Step::Take),
        3 => weather.prop_map(Step::Reserve),
        1 => Just(Step::Remind),
    ]
}

fn lives() -> impl Strategy<Value = Vec<Life>> {
    // The clock is anywhere from 1970 to 2100.
    let life = (0_u64..4_102_444_800, proptest::collection::vec(step(), 1..20), any::<bool>());
    proptest::collection::vec(life, 1..8)
}

/// Runs the processes. Returns every issued id as runs: first and last.
async fn play(lives: &[Life]) -> BTreeMap<u64, u64> {
    let store = Arc::new(Store::default());
    let mut given = BTreeMap::new();
    for (clock, steps, loses) in lives {
        let ids = Arc::new(IdSequence::empty(0));
        let now = UNIX_EPOCH + Duration::from_secs(*clock);
        let mut reserver = Reserver::new(Arc::clone(&ids), Arc::clone(&store) as _, 0, now);
        for step in steps {
            match *step {
                Step::Take(count) => {
                    let taken: Vec<u64> = ids.take(count).await.into_iter().flatten().collect();
                    for run in taken.chunk_by(|one, next| one + 1 == *next) {
                        let (first, last) = (run[0], run[run.len() - 1]);
                        let before = given.range(..=last).next_back().map_or(0, |(_, last)| *last);
                        assert!(before < first, "ids {first} to {last} were given out before, up to {before}");
                        given.insert(first, last);
                    }
                }
                Step::Reserve(weather) => {
                    *store.weather.lock() = Some(weather);
                    if reserver.reserve().await.is_ok() {
                        reserver.resize();
                    }
                    *store.weather.lock() = None;
                }
                Step::Remind if reserver.bound > 0 => drop(reserver.request_block(0, false).await),
                Step::Remind => {}
            }
        }
        // kill -9. A failover at this moment loses the last write.
        if *loses && let Some(before) = *store.before.lock() {
            *store.held.lock() = Some(before);
        }
    }
    given
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn ids_across_restarts_are_never_reused(lives in lives()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(play(&lives));
    }
}

#[tokio::test(start_paused = true)]
async fn ids_at_100_000_a_second_are_not_reused_after_restart() {
    let start = 1_796_000_000;
    let busy = std::iter::repeat_n([Step::Reserve(Weather::Clear), Step::Take(100_000)], 12).flatten().collect();
    let again = vec![Step::Reserve(Weather::Clear), Step::Take(1_000)];
    let given = play(&[(start, busy, false), (start + 12, again, false)]).await;
    assert!(given.iter().map(|(first, last)| last - first + 1).sum::<u64>() > 1_000_000, "{given:?}");
}

#[tokio::test]
async fn numbers_of_a_node_last_for_decades() {
    const MINUTES: u64 = 365 * 24 * 60;
    // A start over Redis takes one block and skips eight.
    assert_eq!(SEQUENCE_END / ((1 + GROWTH) * MIN_BLOCK) / MINUTES, 28, "years of a restart every minute");
    assert_eq!(SEQUENCE_END / 1_024 / 60 / MINUTES, 68, "years of 1 024 ids a second");
}

#[tokio::test]
async fn node_without_a_folder_for_its_ids_begins_at_the_clock() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    for state in [std::path::PathBuf::new(), file] {
        let ids = Arc::new(IdSequence::empty(1));
        let node = NodeConfig { state, ..NodeConfig::default() };
        assert!(reserver(&node, &ids, None).unwrap().is_none());
        assert!(ids.position() >= seed(UNIX_EPOCH + Duration::from_secs(1_796_000_000)) && ids.left() > 0);
    }
    let node = NodeConfig { state: folder.path().to_owned(), ..NodeConfig::default() };
    std::fs::write(folder.path().join("ids-1"), "x").unwrap();
    assert!(reserver(&node, &Arc::new(IdSequence::empty(1)), None).is_err());
}

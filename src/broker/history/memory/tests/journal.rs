//! The journal: a history that restarts at any record, after any cut and after any failure of its disk is the one that
//! did not restart.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use tempfile::TempDir;

use super::*;
use crate::broker::history::journal::{Disk, Folder, JournalError, Opened, Options, State};
use crate::config::Fsync;
use crate::vital::Vitals;

const BASE: Duration = Duration::from_secs(1_767_225_600);
const ENOSPC: i32 = 28;

/// A folder whose writes and syncs can fail.
struct Faulty {
    folder: Folder,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct Faults {
    write: AtomicBool,
    sync: AtomicBool,
}

impl Disk for Faulty {
    fn create(&mut self, number: u64) -> io::Result<()> {
        self.folder.create(number)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.faults.write.load(Ordering::SeqCst) {
            // A full disk takes a part.
            self.folder.append(&bytes[..bytes.len() / 2])?;
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        self.folder.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        match self.faults.sync.load(Ordering::SeqCst) {
            true => Err(io::Error::other("a broken disk")),
            false => self.folder.sync(),
        }
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.folder.cut(length)
    }

    fn remove(&mut self, number: u64) -> io::Result<()> {
        self.folder.remove(number)
    }
}

/// A history in its folder.
pub(in crate::broker) struct Bench {
    dir: TempDir,
    settings: Settings,
    options: Options,
    faults: Arc<Faults>,
    pub(in crate::broker) history: Arc<MemoryHistory>,
    begun: Instant,
}

/// The state of a stream, as far as readers can tell.
type Seen = (Epoch, u64, i64, Vec<i64>, Duration);
type Dump = BTreeMap<String, Seen>;

fn options(fsync: Fsync, segment_bytes: usize) -> Options {
    Options { fsync, boot: "boot".to_owned(), segment_bytes, retry: Duration::from_millis(2) }
}

fn open(
    dir: &Path,
    settings: &Settings,
    options: Options,
    faults: &Arc<Faults>,
    now: Duration,
) -> Result<Arc<MemoryHistory>, JournalError> {
    let faults = Arc::clone(faults);
    MemoryHistory::open_with(settings.clone(), now, &Vitals::default(), |_, replay| {
        Opened::open_with(dir, options, replay, |folder| Box::new(Faulty { folder, faults }))
    })
}

impl Bench {
    /// A history with these settings on a disk of its own.
    pub(in crate::broker) fn of(settings: Settings) -> Self {
        Self::new(settings, options(Fsync::Os, 1 << 20))
    }

    fn new(settings: Settings, options: Options) -> Self {
        let (dir, faults) = (tempfile::tempdir().unwrap(), Arc::<Faults>::default());
        let history = open(dir.path(), &settings, options.clone(), &faults, BASE).unwrap();
        Self { dir, settings, options, faults, history, begun: Instant::now() }
    }

    fn now(&self) -> Duration {
        BASE + self.begun.elapsed()
    }

    /// Opens a copy of the folder, as after a kill of the process. `cut`: the last segment of the copy and its length.
    fn copy(&self, cut: Option<(u64, u64)>, now: Duration) -> (TempDir, Arc<MemoryHistory>) {
        let copy = tempfile::tempdir().unwrap();
        for (number, path) in segments(self.dir.path()) {
            let mut bytes = std::fs::read(&path).unwrap();
            if let Some((last, length)) = cut {
                if number > last {
                    continue;
                }
                if number == last {
                    bytes.truncate(usize::try_from(length).unwrap());
                }
            }
            std::fs::write(copy.path().join(path.file_name().unwrap()), bytes).unwrap();
        }
        let history = open(copy.path(), &self.settings, self.options.clone(), &Arc::default(), now).unwrap();
        (copy, history)
    }

    /// Kills the process and starts it again.
    fn restart(&mut self) {
        let faults = Arc::<Faults>::default();
        let (copy, opened) = self.copy(None, self.now());
        drop(opened);
        // The copy was opened once already. This checks that a second start finds the same, too.
        let again = tempfile::tempdir().unwrap();
        for (_, path) in segments(copy.path()) {
            std::fs::copy(&path, again.path().join(path.file_name().unwrap())).unwrap();
        }
        self.history = open(again.path(), &self.settings, self.options.clone(), &faults, self.now()).unwrap();
        (self.dir, self.faults) = (again, faults);
    }

    async fn append(&self, name: &StreamName, id: i64, history: Retention) -> Option<Position> {
        let appended = self.history.append(name, &envelope(id, &"x".repeat(200), history), 1).ok()?;
        self.history.next(name);
        self.history.written(appended.ticket).await.then_some(appended.position)
    }

    /// Waits until the journal has settled everything.
    async fn settle(&self) {
        self.history.written(u64::MAX).await;
    }

    /// Makes the disk full, or usable again.
    pub(in crate::broker) fn fill(&self, is_full: bool) {
        self.faults.write.store(is_full, Ordering::SeqCst);
    }

    /// Makes the disk usable and waits until the journal works.
    pub(in crate::broker) async fn heal(&self) {
        self.faults.write.store(false, Ordering::SeqCst);
        self.faults.sync.store(false, Ordering::SeqCst);
        while self.history.fault().is_some() {
            tokio::task::yield_now().await;
        }
    }
}

/// Number and path of each segment, in order.
fn segments(dir: &Path) -> BTreeMap<u64, std::path::PathBuf> {
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.file_name().unwrap().to_str().unwrap()[8..].parse().unwrap(), path)).collect()
}

/// The last segment and its length.
fn end(dir: &Path) -> (u64, u64) {
    let (number, path) = segments(dir).pop_last().unwrap();
    (number, std::fs::metadata(path).unwrap().len())
}

fn dump(history: &MemoryHistory) -> Dump {
    let now = history.now();
    let mut dump = Dump::new();
    for map in &history.maps {
        for (name, stream) in &mut map.lock().streams {
            stream.expire(now);
            // A refused append may have created a stream, which nobody knows and no record has.
            if stream.is_over(now, history.settings.ttl_max) || !stream.is_placed() {
                continue;
            }
            let State { epoch, top, top_id, until, messages, .. } = stream.state(name);
            let ids = messages.iter().map(|kept| kept.message.id).collect();
            dump.insert(name.to_string(), (epoch, top, top_id, ids, until));
        }
    }
    dump
}

fn small() -> Settings {
    let user = StreamBounds { size: 4, ..settings().user };
    Settings { user, bytes: 4 << 10, ttl_max: Duration::from_secs(1_800), ..settings() }
}

/// State after a step: its time, its streams, and the end of the journal.
struct Step {
    now: Duration,
    dump: Dump,
    end: (u64, u64),
}

async fn step(bench: &mut Bench, what: u8, name: &StreamName, id: i64) {
    match what {
        0 => drop(bench.history.forget(name).await),
        1 => advance(bench.settings.user.ttl / 2).await,
        2 => drop(bench.history.read(name, ALL).await),
        3 => drop(bench.append(name, id, Retention::Ttl(1_000)).await),
        4 => bench.faults.write.store(true, Ordering::SeqCst),
        5 => bench.heal().await,
        6 if bench.history.fault().is_none() && !bench.faults.write.load(Ordering::SeqCst) => {
            let before = dump(&bench.history);
            bench.restart();
            assert_eq!(dump(&bench.history), before, "after a restart");
        }
        7 if bench.history.fault().is_some() => bench.history.pass_over(name),
        8 => (0..MAPS).for_each(|index| bench.history.sweep_map(index)),
        _ => drop(bench.append(name, id, Retention::Configured).await),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 400, ..ProptestConfig::default() })]

    /// Appends, reads, trims, expiries, evictions, forgets, failing writes and restarts. A copy of the journal that is
    /// cut anywhere gives each stream as it was before or after the step at the cut.
    #[test]
    fn history_survives_a_restart_at_any_byte(
        steps in prop::collection::vec((0u8..16, 0usize..4), 1..80),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 24),
        segment_bytes in 600usize..6_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let mut bench = Bench::new(small(), options(Fsync::Os, segment_bytes));
            let names = ["a", "b", "c", "d"].map(user);
            let mut done = vec![Step { now: bench.now(), dump: Dump::new(), end: end(bench.dir.path()) }];
            for (id, (what, at)) in (1i64..).zip(steps) {
                step(&mut bench, what, &names[at], id).await;
                bench.settle().await;
                if bench.history.fault().is_none() {
                    done.push(Step { now: bench.now(), dump: dump(&bench.history), end: end(bench.dir.path()) });
                }
            }
            bench.heal().await;
            done.push(Step { now: bench.now(), dump: dump(&bench.history), end: end(bench.dir.path()) });
            let lengths: Vec<(u64, u64)> = segments(bench.dir.path())
                .iter()
                .flat_map(|(number, path)| (0..=std::fs::metadata(path).unwrap().len()).map(|length| (*number, length)))
                .collect();
            for cut in cuts.iter().map(|cut| *cut.get(&lengths)) {
                let index = done.iter().rposition(|step| step.end <= cut).unwrap_or(0);
                let (before, after) = (&done[index], done.get(index + 1).unwrap_or(&done[index]));
                let opened = [before, after].map(|step| (step, bench.copy(Some(cut), step.now)));
                for name in &names {
                    let name = name.to_string();
                    let found = |step: &Step, opened: &MemoryHistory| {
                        let found = dump(opened).remove(&name);
                        // An append may be there without the evictions after it. The start then evicts another stream.
                        found == step.dump.get(&name).cloned() || found.is_none() && before.end < cut && cut < after.end
                    };
                    let is_allowed = opened.iter().any(|(step, (_, opened))| found(step, opened));
                    assert!(is_allowed, "{name} cut at {cut:?}: {:?}", opened.map(|(step, (_, it))| (step.dump.clone(), dump(&it))));
                }
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn epochs_positions_and_forgets_survive_a_restart() {
    let mut bench = Bench::new(settings(), options(Fsync::Every(Duration::from_millis(1)), 1 << 20));
    let (a, b, c) = (user("a"), user("b"), user("c"));
    let before = bench.append(&a, 1, Retention::Configured).await.unwrap();
    bench.append(&b, 2, Retention::Configured).await.unwrap();
    assert_eq!(bench.history.forget(&b).await, Ok(true));
    assert_eq!(bench.history.forget(&user("unknown")).await, Ok(false));
    let opened = bench.history.read(&c, ALL).await.unwrap().top;
    bench.restart();
    let third = bench.append(&a, 3, Retention::Configured).await.unwrap();
    assert_eq!((third.epoch, third.offset), (before.epoch, 2));
    assert_eq!(ids(&bench.history.read(&a, after(before)).await.unwrap()), [3]);
    assert!(bench.history.read(&b, ALL).await.unwrap().messages.is_empty(), "forgotten");
    assert_eq!(bench.history.read(&c, ALL).await.unwrap().top, opened);
}

#[tokio::test(start_paused = true)]
async fn restart_of_the_machine_renews_all_epochs_unless_every_write_was_synced() {
    for (fsync, is_clean, renews) in [
        (Fsync::Os, false, true),
        (Fsync::Every(Duration::from_secs(1)), false, true),
        (Fsync::Always, false, false),
        (Fsync::Os, true, false),
    ] {
        let mut bench = Bench::new(settings(), options(fsync, 1 << 20));
        let before = bench.append(&user("a"), 1, Retention::Configured).await.unwrap();
        if is_clean {
            bench.history.close().await;
        }
        bench.options.boot = "another".to_owned();
        bench.restart();
        let page = bench.history.read(&user("a"), ALL).await.unwrap();
        assert_eq!((page.top.epoch != before.epoch, ids(&page)), (renews, vec![1]), "{fsync:?} {is_clean}");
        let renewed = dump(&bench.history);
        bench.restart();
        assert_eq!(dump(&bench.history), renewed, "the renewal is in the journal");
    }
}

#[tokio::test(start_paused = true)]
async fn full_disk_refuses_appends_and_takes_them_again() {
    for fsync in [Fsync::Os, Fsync::Always] {
        let mut bench = Bench::new(settings(), options(fsync, 1 << 20));
        let name = user("a");
        let first = bench.append(&name, 1, Retention::Configured).await.unwrap();
        bench.faults.write.store(true, Ordering::SeqCst);
        assert_eq!(bench.append(&name, 2, Retention::Configured).await, None, "lost");
        assert!(bench.history.fault().unwrap().contains("No space left"), "{:?}", bench.history.fault());
        assert!(bench.history.append(&name, &envelope(3, "", Retention::Configured), 1).is_err(), "refused");
        assert!(bench.history.forget(&name).await.is_err());
        let page = bench.history.read(&name, ALL).await.unwrap();
        assert_eq!((page.top, ids(&page)), (first, vec![1]), "what is written is read");
        bench.heal().await;
        let second = bench.append(&name, 4, Retention::Configured).await.unwrap();
        assert_eq!((second.epoch, second.offset), (first.epoch, 2));
        let before = dump(&bench.history);
        bench.restart();
        assert_eq!(dump(&bench.history), before);
    }
}

#[tokio::test(start_paused = true)]
async fn failed_sync_loses_what_is_not_on_the_disk_and_writes_every_stream_again() {
    let mut bench = Bench::new(settings(), options(Fsync::Always, 1 << 20));
    let (a, b) = (user("a"), user("b"));
    bench.append(&a, 1, Retention::Configured).await.unwrap();
    bench.append(&b, 2, Retention::Configured).await.unwrap();
    bench.faults.sync.store(true, Ordering::SeqCst);
    assert_eq!(bench.append(&b, 3, Retention::Configured).await, None);
    bench.heal().await;
    bench.append(&b, 4, Retention::Configured).await.unwrap();
    let before = dump(&bench.history);
    let first = segments(bench.dir.path()).pop_first().unwrap().1;
    std::fs::remove_file(first).unwrap();
    bench.restart();
    assert_eq!(dump(&bench.history), before, "the first segment is not needed");
}

#[tokio::test(start_paused = true)]
async fn unkept_message_of_a_stream_begins_a_new_epoch() {
    let mut bench = Bench::new(settings(), options(Fsync::Os, 1 << 20));
    let name = user("a");
    let first = bench.append(&name, 1, Retention::Configured).await.unwrap();
    bench.faults.write.store(true, Ordering::SeqCst);
    assert_eq!(bench.append(&name, 2, Retention::Configured).await, None);
    bench.history.pass_over(&name);
    bench.heal().await;
    let told = bench.history.read(&name, after(first)).await.unwrap();
    assert_eq!(told.missed, Some(Missed::Epoch));
    let before = dump(&bench.history);
    bench.restart();
    assert_eq!(dump(&bench.history), before, "also after a restart");
}

#[tokio::test(start_paused = true)]
async fn node_starts_while_its_disk_is_full() {
    let mut bench = Bench::new(settings(), options(Fsync::Os, 1 << 20));
    let first = bench.append(&user("a"), 1, Retention::Configured).await.unwrap();
    bench.settle().await;
    let faults = Arc::new(Faults { write: AtomicBool::new(true), sync: AtomicBool::new(false) });
    let copy = tempfile::tempdir().unwrap();
    for (_, path) in segments(bench.dir.path()) {
        std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    bench.history = open(copy.path(), &bench.settings, bench.options.clone(), &faults, BASE).unwrap();
    (bench.dir, bench.faults) = (copy, faults);
    assert!(bench.history.fault().is_some());
    assert_eq!(bench.history.read(&user("a"), ALL).await.unwrap().top, first);
    assert_eq!(bench.append(&user("a"), 2, Retention::Configured).await, None);
    bench.heal().await;
    assert_eq!(bench.append(&user("a"), 3, Retention::Configured).await.unwrap().offset, 2);
}

#[tokio::test(start_paused = true)]
async fn old_segments_are_removed_and_the_streams_in_them_stay() {
    let mut bench = Bench::new(Settings { bytes: 1 << 20, ..small() }, options(Fsync::Os, 8 << 10));
    let quiet = user("quiet");
    bench.append(&quiet, 1, Retention::Configured).await.unwrap();
    for id in 2..600 {
        bench.append(&user(&format!("u{}", id % 3)), id, Retention::Configured).await.unwrap();
        let journal = bench.history.journal.as_ref().unwrap();
        while bench.history.compact_once(journal, journal.extent()).await {
            bench.settle().await;
        }
    }
    bench.settle().await;
    let found = segments(bench.dir.path());
    assert!(found.len() <= 6, "{:?}", found.keys());
    assert!(*found.keys().next().unwrap() > 10, "{:?}", found.keys());
    let before = dump(&bench.history);
    assert!(before.contains_key("u:quiet"));
    bench.restart();
    assert_eq!(dump(&bench.history), before);
}

#[tokio::test(start_paused = true)]
async fn damaged_segment_before_the_last_loses_its_streams_and_no_others() {
    let mut bench = Bench::new(settings(), options(Fsync::Os, 1 << 20));
    let (a, b) = (user("a"), user("b"));
    let lost = bench.append(&a, 1, Retention::Configured).await.unwrap();
    bench.restart();
    let kept = bench.append(&b, 2, Retention::Configured).await.unwrap();
    bench.settle().await;
    let first = segments(bench.dir.path()).pop_first().unwrap().1;
    let mut bytes = std::fs::read(&first).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(first, bytes).unwrap();
    bench.restart();
    assert_eq!(bench.history.read(&a, after(lost)).await.unwrap().missed, Some(Missed::Epoch));
    assert_eq!(bench.history.read(&b, after(kept)).await.unwrap().missed, None);
}

//! The test of hot reload: every kind of change to the plugin directory while messages flow.
//!
//! A seed selects the changes, and the test prints it. The long run with its ledger: `RELOADS=1000 SEED=7 cargo test
//! --test it -- reloads_under_load --nocapture`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::load::{Progress, check, hex, produce};
use crate::support::dice::{Dice, given};
use crate::support::gateway::{Gateway, Setup, component};

#[path = "../../../src/plugin/tests/guests.rs"]
#[allow(dead_code, reason = "the host's own tests use the rest")]
mod guests;

/// Publishers that push all the time.
const PRODUCERS: usize = 2;

/// Longest time for one change.
const PATIENCE: Duration = Duration::from_secs(300);

/// Invalid contents of the file after a change.
const BROKEN: [Content; 8] = [
    Content::Half,
    Content::Garbage,
    Content::Empty,
    Content::CoreModule,
    Content::NoRole,
    Content::WrongWorld,
    Content::TrapInStart,
    Content::LoopInStart,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Content {
    Good,
    Half,
    Garbage,
    Empty,
    CoreModule,
    NoRole,
    WrongWorld,
    TrapInStart,
    LoopInStart,
}

/// Ways to replace the file.
const WAYS: [Way; 4] = [Way::Rename, Way::InPlace, Way::Recreate, Way::Symlink];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Rename,
    InPlace,
    Recreate,
    Symlink,
}

/// Resources of the node, as its `/proc` reports them.
#[derive(Debug, Clone, Copy)]
struct Held {
    reload: usize,
    rss_kib: usize,
    threads: usize,
    files: usize,
    mappings: usize,
}

impl Held {
    fn by(gateway: &Gateway, reload: usize) -> Self {
        let proc = format!("/proc/{}", gateway.pid());
        let status = fs::read_to_string(format!("{proc}/status")).unwrap();
        let number = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        Self {
            reload,
            rss_kib: number("VmRSS:"),
            threads: number("Threads:"),
            files: fs::read_dir(format!("{proc}/fd")).unwrap().count(),
            mappings: fs::read_to_string(format!("{proc}/maps")).unwrap().lines().count(),
        }
    }

    /// True if the increase over `before` is noise: memory kept by the allocator, or a running compiler and its pipes.
    fn is_flat_since(&self, before: &Self) -> bool {
        self.rss_kib <= before.rss_kib + before.rss_kib / 10 + (16 << 10)
            && self.threads <= before.threads + 8
            && self.files <= before.files + 12
            && self.mappings <= before.mappings + before.mappings / 10 + 32
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_load_lose_nothing() {
    let held = reloads(given("RELOADS", 40), given("SEED", 20_260) as u64).await;
    // After the warm-up, the resources stay constant.
    let Some(at_200) = held.iter().find(|held| held.reload == 200) else { return };
    for later in held.iter().filter(|held| held.reload > 200) {
        assert!(later.is_flat_since(at_200), "resources grew: {later:?}\nat reload 200: {at_200:?}");
    }
}

/// Changes one file `count` times under load. At least 30 of 100 changes are broken; the resources are printed every
/// 50.
async fn reloads(count: usize, seed: u64) -> Vec<Held> {
    println!("seed {seed}");
    let yaml = "plugins:\n  dir: $PLUGINS\n  cache: compiled\n  settle: 50ms\n  rescan: 1s";
    let gateway = Arc::new(Setup::default().plugin_as("stamp", "stamp-v1").yaml(yaml).start());
    let progress = Arc::new(Progress::default());
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|number| tokio::spawn(produce(Arc::clone(&gateway), Arc::clone(&progress), number)))
        .collect();
    let (mut dice, mut ledger, mut held) = (Dice(seed), BTreeMap::<_, usize>::new(), Vec::new());
    let mut slowest = Duration::ZERO;
    let begun = Instant::now();
    // This many files of each kind alternate: each is compiled once and then loaded from the cache.
    let files = (count / 100).next_multiple_of(2).max(4);
    for reload in 1..=count {
        // Three of ten are broken, and at random a few more.
        let broken = reload % 10 < 3 || dice.roll(20) == 0;
        let content = if broken { BROKEN[dice.roll(BROKEN.len())] } else { Content::Good };
        let way = WAYS[dice.roll(WAYS.len())];
        let took = change(&gateway, &progress, reload, files, content, way).await;
        slowest = slowest.max(took);
        *ledger.entry((content, way)).or_default() += 1;
        if reload % 50 == 0 {
            held.push(Held::by(&gateway, reload));
            println!("{:?}", held[held.len() - 1]);
        }
    }
    progress.done.store(true, Ordering::SeqCst);
    let mut messages = 0;
    for producer in producers {
        let judged = producer.await.unwrap();
        messages += judged.len();
        check(&judged);
    }
    let good = progress.live.load(Ordering::SeqCst);
    for ((content, way), times) in &ledger {
        println!("{times:4} x {content:?} by {way:?}");
    }
    let elapsed = begun.elapsed();
    println!("{count} changes in {elapsed:?} (slowest {slowest:?}): {good} went live, {} were refused", count - good);
    println!(
        "{messages} messages: each delivered once, in order, none refused, none judged by an older version than before"
    );
    assert!((count - good) * 10 >= count * 3, "fewer than 30 % of the files were broken");
    assert!(messages > count, "expected more messages, got {messages}");
    held
}

/// Makes one change and waits until the node accepts or refuses it.
async fn change(
    gateway: &Gateway,
    progress: &Progress,
    reload: usize,
    files: usize,
    content: Content,
    way: Way,
) -> Duration {
    let version = progress.offered.load(Ordering::SeqCst) + 1;
    let salt = if content == Content::Good { version } else { reload } % files;
    let bytes = bytes(content, salt, version);
    let hash = hex(&bytes);
    if content == Content::Good {
        progress.offered.store(version, Ordering::SeqCst);
    }
    let begun = Instant::now();
    place(gateway, way, reload, &bytes);
    if content == Content::Good {
        until(gateway, |plugin| plugin["hash"] == hash.as_str() && plugin["state"] == "live").await;
        progress.live.store(version, Ordering::SeqCst);
    } else {
        let told = until(gateway, |plugin| plugin["rejected"]["hash"] == hash.as_str()).await;
        assert_eq!(told["state"], "live", "{content:?}: the last good version does not serve: {told}");
    }
    begun.elapsed()
}

/// Compilation runs at the lowest priority and takes long on a busy machine.
async fn until(gateway: &Gateway, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut http = gateway.http().await;
    let begun = Instant::now();
    loop {
        let plugins = http.get("/plugins").await.data();
        let stamp = plugins["items"].as_array().unwrap().iter().find(|plugin| plugin["name"] == "stamp").unwrap();
        if wanted(stamp) {
            return stamp.clone();
        }
        assert!(begun.elapsed() < PATIENCE, "the change had no effect, the stamp is {stamp}\n{}", gateway.log());
        tokio::task::yield_now().await;
    }
}

/// A salt makes the bytes unique; good version n is `stamp-v1` for even n.
fn bytes(content: Content, number: usize, version: usize) -> Vec<u8> {
    let good = || component(if version.is_multiple_of(2) { "stamp-v1" } else { "stamp-v2" });
    let salt = u32::try_from(number).unwrap().to_le_bytes();
    match content {
        Content::Good => salted(good(), salt),
        Content::Half => {
            let whole = salted(good(), salt);
            whole[..whole.len() / 2 + number].to_vec()
        }
        Content::Garbage => [b"garbage ".as_slice(), &salt].concat(),
        Content::Empty => Vec::new(),
        Content::CoreModule => salted(b"\0asm\x01\0\0\0".to_vec(), salt),
        Content::NoRole => salted(b"\0asm\x0d\0\x01\0".to_vec(), salt),
        Content::WrongWorld => salted(wat::parse_str(WRONG_WORLD).unwrap(), salt),
        Content::TrapInStart => salted(guests::starting(guests::TRAP), salt),
        Content::LoopInStart => salted(guests::starting(guests::LOOP), salt),
    }
}

/// Imports an interface that no host has.
const WRONG_WORLD: &str = r#"(component (import "other:host/thing@1.0.0" (instance)))"#;

/// Appends a custom section that makes the bytes unique.
fn salted(mut bytes: Vec<u8>, salt: [u8; 4]) -> Vec<u8> {
    bytes.extend([0, 6, 1, b'x']);
    bytes.extend(salt);
    bytes
}

fn place(gateway: &Gateway, way: Way, reload: usize, bytes: &[u8]) {
    let path = gateway.folder.plugins().join("stamp.wasm");
    match way {
        Way::Rename => gateway.folder.put("stamp.wasm", bytes),
        Way::InPlace => fs::write(path, bytes).unwrap(),
        Way::Recreate => {
            fs::remove_file(&path).unwrap();
            fs::write(path, bytes).unwrap();
        }
        Way::Symlink => link(gateway.folder.path(), &path, reload, bytes),
    }
}

/// Replaces a link by one to another file, as mounted configuration changes.
fn link(folder: &Path, path: &Path, reload: usize, bytes: &[u8]) {
    let store = folder.join("store");
    fs::create_dir_all(&store).unwrap();
    let (file, aside) = (store.join(reload.to_string()), store.join("link"));
    fs::write(&file, bytes).unwrap();
    symlink(file, &aside).unwrap();
    fs::rename(aside, path).unwrap();
}

/// Measures the time from the rename of a cached file to the first message it judges; `GUEST=file` uses another filter.
/// The time is printed, not asserted: 150 ms of it are the settle time, and a busy machine adds any amount.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_known_file_judges_the_next_message() {
    let guest = std::env::var("GUEST").map(|file| fs::read(file).unwrap()).unwrap_or_else(|_| component("word-filter"));
    let yaml = "plugins:\n  dir: $PLUGINS\n  cache: compiled";
    let gateway = Setup::default().plugin_as("known", "noop").yaml(yaml).start();
    let mut http = gateway.http().await;
    let known = hex(&guest);
    let (mut compiled, mut took) = (None, Vec::new());
    for round in 0..9_u8 {
        let begun = Instant::now();
        gateway.folder.put("known.wasm", &guest);
        // The first load compiles it, which may take long for a plugin in a large language.
        while http.get("/plugins").await.data()["items"][0]["hash"] != known.as_str() {
            assert!(begun.elapsed() < PATIENCE, "{}", gateway.log());
            tokio::task::yield_now().await;
        }
        let body = json!({"receiver": "nobody", "action": "chat"});
        assert_eq!(http.post("/send", &body).await.data().get("rejected"), None);
        let calls = gateway.plugin_until("known", |_| true).await["calls"].as_u64();
        assert_eq!(calls, Some(1), "another call was counted");
        match compiled {
            None => compiled = Some(begun.elapsed()),
            Some(_) => took.push(begun.elapsed()),
        }
        // Another file in between, so that only the cache holds the known one.
        let other = salted(component("noop"), [round; 4]);
        let hash = hex(&other);
        gateway.folder.put("known.wasm", &other);
        gateway.plugin_until("known", |plugin| plugin["hash"] == hash.as_str()).await;
    }
    took.sort();
    println!("{} bytes: compiled and live in {:?}, from the cache in {:?}", guest.len(), compiled.unwrap(), took);
}

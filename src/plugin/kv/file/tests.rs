//! Properties of a file store only: it outlives its node, may be broken or foreign, fails and comes back.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use redb::StorageBackend;

use super::super::Write;
use super::*;
use crate::vital::Vitals;

const SHARE: Share = Share { bytes: 1 << 20, keys: 10_000 };
const NOW: Duration = Duration::from_secs(1_767_225_600);

fn write(key: &str, value: Option<&str>, ttl: Option<u64>) -> Commit {
    let write = Write { value: value.map(|value| value.as_bytes().into()), ttl: ttl.map(Duration::from_secs) };
    Commit { writes: BTreeMap::from([(key.to_owned(), write)]), ..Commit::default() }
}

async fn value(store: &FileStore, key: &str) -> Option<String> {
    let found = store.get("p", key).await.unwrap();
    found.value.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

fn open(path: &Path, seconds: u64) -> FileStore {
    FileStore::open(path, Time::fixed(NOW + Duration::from_secs(seconds)), &Vitals::default()).unwrap()
}

#[tokio::test]
async fn committed_keys_survive_reopen_and_expire_on_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kv.redb");
    let store = open(&path, 0);
    for commit in [
        write("stays", Some("1"), None),
        write("ends", Some("2"), Some(30)),
        write("gone", Some("3"), None),
        write("gone", None, None),
    ] {
        store.commit("p", commit, SHARE).await.unwrap();
    }
    store.commit("q", write("stays", Some("another's"), None), SHARE).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    drop(store);

    let store = open(&path, 29);
    let found = (value(&store, "stays").await, value(&store, "ends").await, value(&store, "gone").await);
    assert_eq!(found, (Some("1".to_owned()), Some("2".to_owned()), None));
    store.time.advance(Duration::from_secs(1));
    assert_eq!(value(&store, "ends").await, None);
    drop(store);
    assert_eq!(value(&open(&path, 30), "ends").await, None);
}

#[test]
fn a_file_that_others_may_write_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kv.redb");
    drop(open(&path, 0));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o620)).unwrap();
    let error = FileStore::open(&path, Time::fixed(NOW), &Vitals::default()).err().unwrap().to_string();
    assert!(error.contains("kv.redb: expected owner root") && error.ends_with("mode 0620: chmod go-w"), "{error}");
}

#[tokio::test]
async fn expired_rows_are_removed_from_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kv.redb");
    let store = open(&path, 0);
    store.commit("p", write("ends", Some("2"), Some(30)), SHARE).await.unwrap();
    drop(store);
    let store = open(&path, 31);
    store.commit("p", write("new", Some("1"), None), SHARE).await.unwrap();
    drop(store);
    let database = builder().open(&path).unwrap();
    let rows = database.begin_read().unwrap().open_table(TABLE).unwrap();
    let keys: Vec<String> = rows.iter().unwrap().map(|row| row.unwrap().0.value().1.to_owned()).collect();
    assert_eq!(keys, ["new"]);
}

#[tokio::test]
async fn a_file_that_is_broken_or_anothers_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kv.redb");
    let store = open(&path, 0);
    for key in 0..200 {
        store.commit("p", write(&key.to_string(), Some(&"x".repeat(500)), None), SHARE).await.unwrap();
    }
    let refusal = |path: &Path| FileStore::open(path, Time::default(), &Vitals::default()).unwrap_err().to_string();
    assert!(refusal(&path).contains("another process has the file open"), "{}", refusal(&path));
    drop(store);
    assert!(refusal(&dir.path().join("none/kv.redb")).contains("No such file"));

    let good = std::fs::read(&path).unwrap();
    let rows = good.windows(40).position(|bytes| bytes.iter().all(|byte| *byte == b'x')).unwrap();
    let mut flipped = good.clone();
    flipped[rows + 20] ^= 1;
    let cases: [(&str, Vec<u8>); 4] = [
        ("garbage", b"garbage".repeat(1_000)),
        ("a text", b"hello".to_vec()),
        ("half of it", good[..good.len() / 2].to_vec()),
        ("a changed row", flipped),
    ];
    for (name, bytes) in cases {
        std::fs::write(&path, &bytes).unwrap();
        let why = refusal(&path);
        assert!(why.contains("expected a key-value store of plugins, got"), "{name}: {why}");
        assert!(why.contains("kv.redb") && why.contains("move it away"), "{name}: {why}");
    }

    let other = dir.path().join("other.redb");
    let database = Database::create(&other).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(TableDefinition::<u64, u64>::new("orders")).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(refusal(&other).contains("another program"), "{}", refusal(&other));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_calls_that_add_to_one_key_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kv.redb");
    let store = Arc::new(open(&path, 0));
    let adders: Vec<_> = (0..8)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for _ in 0..25 {
                    loop {
                        let found = store.get("p", "sum").await.unwrap();
                        let held = found.value.map_or(0, |value| String::from_utf8_lossy(&value).parse().unwrap());
                        let sum: u64 = held + 1;
                        let mut commit = write("sum", Some(&sum.to_string()), None);
                        commit.reads.insert("sum".to_owned(), found.version);
                        match store.commit("p", commit, SHARE).await {
                            Ok(()) => break,
                            Err(error) => assert_eq!(error, KvError::Conflict),
                        }
                    }
                }
            })
        })
        .collect();
    for adder in adders {
        adder.await.unwrap();
    }
    drop(store);
    assert_eq!(value(&open(&path, 0), "sum").await.as_deref(), Some("200"));
}

/// A disk in memory that can be made to fail, and to stall.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<Platter>);

#[derive(Debug, Default)]
struct Platter {
    bytes: Mutex<Vec<u8>>,
    fails: AtomicBool,
    syncs: AtomicUsize,
    held: Mutex<()>,
}

impl Disk {
    fn range(offset: u64, length: usize) -> std::ops::Range<usize> {
        let start = usize::try_from(offset).unwrap();
        start..start + length
    }

    fn check(&self) -> io::Result<()> {
        if self.0.fails.load(Ordering::SeqCst) { Err(io::Error::other("no space left")) } else { Ok(()) }
    }

    fn opener(&self) -> Opener {
        let disk = self.clone();
        Box::new(move || {
            disk.check()?;
            builder().create_with_backend(disk.clone())
        })
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.bytes.lock().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        out.copy_from_slice(&self.0.bytes.lock()[Self::range(offset, out.len())]);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.check()?;
        self.0.bytes.lock().resize(usize::try_from(length).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let _held = self.0.held.lock();
        self.0.syncs.fetch_add(1, Ordering::SeqCst);
        self.check()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.0.bytes.lock()[Self::range(offset, data.len())].copy_from_slice(data);
        Ok(())
    }
}

#[tokio::test]
async fn failed_write_is_rolled_back_without_effect_on_earlier_keys() {
    let disk = Disk::default();
    let store =
        FileStore::with_opener(disk.opener(), Time::default(), Duration::from_millis(1), &Vitals::default()).unwrap();
    store.commit("p", write("kept", Some("1"), None), SHARE).await.unwrap();
    let read = store.get("p", "kept").await.unwrap();

    disk.0.fails.store(true, Ordering::SeqCst);
    let lost = store.commit("p", write("kept", Some("2"), None), SHARE).await.unwrap_err();
    assert!(lost.to_string().contains("no space left"), "{lost}");
    for refused in [
        store.get("p", "kept").await.unwrap_err(),
        store.commit("p", write("other", Some("3"), None), SHARE).await.unwrap_err(),
        store.commit("p", Commit::default(), SHARE).await.unwrap_err(),
    ] {
        assert_eq!(refused, lost, "nobody builds on what was lost");
    }

    disk.0.fails.store(false, Ordering::SeqCst);
    while store.get("p", "kept").await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!((value(&store, "kept").await.as_deref(), value(&store, "other").await), (Some("1"), None));
    let mut late = write("kept", Some("4"), None);
    late.reads.insert("kept".to_owned(), read.version);
    assert_eq!(store.commit("p", late, SHARE).await, Err(KvError::Conflict), "it was written in between");
    store.commit("p", write("kept", Some("5"), None), SHARE).await.unwrap();
    drop(store);
    let store = FileStore::with_opener(disk.opener(), Time::default(), RETRY, &Vitals::default()).unwrap();
    assert_eq!(value(&store, "kept").await.as_deref(), Some("5"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_that_wait_are_one_transaction_and_a_bounded_number() {
    let disk = Disk::default();
    let store = Arc::new(FileStore::with_opener(disk.opener(), Time::default(), RETRY, &Vitals::default()).unwrap());
    store.commit("p", write("first", Some("1"), None), SHARE).await.unwrap();
    let before = disk.0.syncs.load(Ordering::SeqCst);
    let held = disk.0.held.lock();
    // The first commit may be on its way to the disk alone; all others wait behind it.
    let jobs: Vec<_> =
        (0..100).map(|key| store.enqueue("p", write(&key.to_string(), Some("1"), None), SHARE).unwrap()).collect();
    drop(held);
    for job in jobs {
        job.await.unwrap().unwrap();
    }
    let syncs = disk.0.syncs.load(Ordering::SeqCst) - before;
    assert!(syncs <= 8, "{syncs} syncs for 100 commits");

    store.write_state.lock().waiting = WAITING;
    let full = store.enqueue("p", write("late", Some("1"), None), SHARE).unwrap_err();
    assert!(full.to_string().contains("1024 commits wait for the disk"), "{full}");
    store.write_state.lock().waiting = 0;
    assert_eq!(value(&store, "late").await, None, "nothing of it is in memory");
}

//! The file store: the memory store, backed by a database (redb) that has every commit before its caller gets the
//! answer.
//!
//! Memory answers reads and checks conflicts and shares, at the cost of the memory store. One thread writes the file,
//! and combines all waiting commits in one transaction. When the disk fails, every commit that was not written fails,
//! and memory goes back to the content of the file. Until the file can be opened again, the store refuses reads and
//! commits. Knows no plugin. The file belongs to one node: it is locked while the node runs.

#[cfg(test)]
mod tests;

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use redb::backends::FileBackend;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition, TableHandle};
use tokio::sync::oneshot;

use super::memory::{MemoryStore, StoredKey};
use super::{Commit, Found, KvError, Share, Store};
use crate::owners;
use crate::plugin::time::Time;
use crate::vital::Vitals;

/// From plugin and key to the expiry, in milliseconds since 1970, and the value. The table's name states the form of
/// the rows.
const TABLE: TableDefinition<'_, (&str, &str), (u64, &[u8])> = TableDefinition::new("skylark-kv-1");
/// Expiry of a key that does not expire.
const NEVER: u64 = u64::MAX;
/// Commits that may wait for the disk; more are refused.
const WAITING: usize = 1_024;
/// Most commits of one transaction.
const AT_ONCE: usize = 256;
/// Interval at which a write also removes expired rows.
const SWEEP: Duration = Duration::from_secs(60);
/// Interval at which a failed file is opened again.
const RETRY: Duration = Duration::from_secs(1);
/// Bytes of pages that the database caches. Few, since everything is in memory already.
const PAGES: usize = 8 << 20;
const WRITER_ENDED: &str = "its writer thread has ended";

/// Why a file cannot be the store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be opened or created. A missing folder is not created: it may be a disk that is not mounted.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// Another process has the file open.
    #[error("{}: another process has the file open: give each node a file of its own", .0.display())]
    InUse(PathBuf),
    /// The file is no store of Skylark, or it is broken.
    #[error(
        "{}: expected a key-value store of plugins, got {why}: restore a copy of it, or move it away to start with an empty one",
        path.display()
    )]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Its actual content.
        why: String,
    },
}

/// Keeps everything in a file, and a copy of it in memory.
///
/// A commit that was answered is on the disk (`fdatasync`), so neither a crash of the node nor of the machine takes it
/// back. Another call may see a commit before it is on the disk.
#[derive(Debug)]
pub struct FileStore {
    memory: Arc<MemoryStore>,
    write_state: Arc<Mutex<WriteState>>,
    time: Time,
    /// `None` during the drop.
    queue: Option<SyncSender<PendingCommit>>,
    writer: Option<JoinHandle<()>>,
}

/// State of the writer. Its lock keeps the commits in the queue in the order in which the memory took them.
#[derive(Debug, Default)]
struct WriteState {
    /// Why the file takes nothing, if so.
    closed: Option<String>,
    /// Commits in the queue.
    waiting: usize,
}

/// The rows of one commit, and the caller that waits for it.
struct PendingCommit {
    space: String,
    rows: Vec<Row>,
    done: oneshot::Sender<Result<(), KvError>>,
}

/// A key with its new expiry and value, or `None` to delete it.
type Row = (String, Option<(u64, Arc<[u8]>)>);

/// Opens the database at the start, and again after a failure.
type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send>;

impl FileStore {
    /// Opens the file and reads it whole; a broken file is refused. A missing file is created with mode 0600. Keys
    /// expire by the plugins' time. The writing thread is registered in `vitals`.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(path: &Path, time: Time, vitals: &Vitals) -> Result<Self, OpenError> {
        let file = path.to_owned();
        let opener = move || {
            let file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&file)?;
            owners::check(&file, &file.metadata()?).map_err(io::Error::other)?;
            builder().create_with_backend(FileBackend::new(file)?)
        };
        Self::with_opener(Box::new(opener), time, RETRY, vitals).map_err(|error| open_error(path, error))
    }

    fn with_opener(opener: Opener, time: Time, retry: Duration, vitals: &Vitals) -> Result<Self, redb::Error> {
        let database = opener()?;
        let memory = Arc::new(MemoryStore::default().with_time(time.clone()));
        memory.replace(read(&database, &time)?);
        let (queue, jobs) = sync_channel(WAITING);
        let write_state = Arc::<Mutex<WriteState>>::default();
        let writer = Writer {
            database: Some(database),
            opener,
            memory: Arc::clone(&memory),
            write_state: Arc::clone(&write_state),
            time: time.clone(),
            retry,
            swept: None,
        };
        let thread = std::thread::Builder::new().name("plugin-kv".to_owned());
        let vital = vitals.watch("plugin store");
        let writer = thread.spawn(move || {
            writer.run(&jobs);
            vital.done();
        })?;
        Ok(Self { memory, write_state, time, queue: Some(queue), writer: Some(writer) })
    }

    /// Takes the commit into memory and queues it for the writer. The receiver gets the result once the commit is on
    /// the disk.
    fn enqueue(
        &self,
        space: &str,
        commit: Commit,
        share: Share,
    ) -> Result<oneshot::Receiver<Result<(), KvError>>, KvError> {
        let (done, written) = oneshot::channel();
        let now = self.time.since_1970();
        let end = |ttl: Option<Duration>| ttl.map_or(NEVER, |ttl| millis(now.saturating_add(ttl)));
        let row = |(key, write): (&String, &super::Write)| {
            (key.clone(), write.value.as_ref().map(|value| (end(write.ttl), Arc::clone(value))))
        };
        let rows = commit.writes.iter().map(row).collect();
        let mut write_state = self.write_state.lock();
        write_state.check()?;
        if write_state.waiting >= WAITING {
            return Err(KvError::Unavailable(format!("{WAITING} commits wait for the disk")));
        }
        self.memory.apply(space, commit, share)?;
        let job = PendingCommit { space: space.to_owned(), rows, done };
        let sent = self.queue.as_ref().is_some_and(|queue| queue.try_send(job).is_ok());
        if !sent {
            return Err(KvError::Unavailable(WRITER_ENDED.to_owned()));
        }
        write_state.waiting += 1;
        Ok(written)
    }
}

impl WriteState {
    /// An error while the file takes no commits.
    fn check(&self) -> Result<(), KvError> {
        self.closed.as_ref().map_or(Ok(()), |why| Err(KvError::Unavailable(why.clone())))
    }
}

impl Store for FileStore {
    fn get<'a>(&'a self, space: &'a str, key: &'a str) -> BoxFuture<'a, Result<Found, KvError>> {
        let checked = self.write_state.lock().check();
        async move {
            checked?;
            self.memory.get(space, key).await
        }
        .boxed()
    }

    fn fits<'a>(&'a self, space: &'a str, commit: &'a Commit, share: Share) -> BoxFuture<'a, bool> {
        self.memory.fits(space, commit, share)
    }

    fn commit<'a>(&'a self, space: &'a str, commit: Commit, share: Share) -> BoxFuture<'a, Result<(), KvError>> {
        async move {
            if commit.writes.is_empty() {
                self.write_state.lock().check()?;
                return self.memory.apply(space, commit, share);
            }
            let written = self.enqueue(space, commit, share)?;
            written.await.unwrap_or_else(|_| Err(KvError::Unavailable(WRITER_ENDED.to_owned())))
        }
        .boxed()
    }
}

impl Drop for FileStore {
    /// Commits that wait are written first.
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(writer) = self.writer.take() {
            // A panic of the writer was reported already.
            let _ = writer.join();
        }
    }
}

/// The only thread that writes the file.
struct Writer {
    /// `None` while the file cannot be used.
    database: Option<Database>,
    opener: Opener,
    memory: Arc<MemoryStore>,
    write_state: Arc<Mutex<WriteState>>,
    time: Time,
    retry: Duration,
    swept: Option<Instant>,
}

impl Writer {
    /// Runs until the store is dropped.
    fn run(mut self, jobs: &Receiver<PendingCommit>) {
        loop {
            match jobs.recv_timeout(self.retry) {
                Ok(first) => {
                    let batch: Vec<PendingCommit> =
                        std::iter::once(first).chain(jobs.try_iter().take(AT_ONCE - 1)).collect();
                    self.write_state.lock().waiting -= batch.len();
                    match self.write(&batch) {
                        Ok(()) => answer(batch, &Ok(())),
                        Err(error) => self.fail(batch, jobs, &error),
                    }
                }
                Err(RecvTimeoutError::Timeout) if self.database.is_none() => self.recover(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Writes the batch as one transaction, which is on the disk when this returns.
    fn write(&mut self, batch: &[PendingCommit]) -> Result<(), redb::Error> {
        let database = self.database.as_ref().ok_or(StorageError::DatabaseClosed)?;
        let mut transaction = database.begin_write()?;
        // Guests choose the content of the rows. With a chosen content, half a transaction could pass the checksum of a
        // whole one; a two-phase commit prevents this.
        transaction.set_two_phase_commit(true);
        let sweeps = self.swept.is_none_or(|swept| swept.elapsed() >= SWEEP);
        {
            let mut table = transaction.open_table(TABLE)?;
            for PendingCommit { space, rows, .. } in batch {
                for (key, row) in rows {
                    match row {
                        Some((end, value)) => drop(table.insert((space.as_str(), key.as_str()), (*end, &**value))?),
                        None => drop(table.remove((space.as_str(), key.as_str()))?),
                    }
                }
            }
            if sweeps {
                let now = millis(self.time.since_1970());
                table.retain(|_, (end, _)| end > now)?;
            }
        }
        transaction.commit()?;
        if sweeps {
            self.swept = Some(Instant::now());
        }
        Ok(())
    }

    /// The disk failed: drops everything that waits and closes the store, so that no call builds on it.
    fn fail(&mut self, batch: Vec<PendingCommit>, jobs: &Receiver<PendingCommit>, error: &redb::Error) {
        // The file lock goes with it, so that the file can be opened again.
        self.database = None;
        let why = format!("its file failed: {error}");
        let lost: Vec<PendingCommit> = {
            let mut write_state = self.write_state.lock();
            write_state.closed = Some(why.clone());
            write_state.waiting = 0;
            jobs.try_iter().collect()
        };
        tracing::error!(%error, commits = batch.len() + lost.len(), "plugin key-value store failed: calls that use it fail until its file can be opened again");
        let failed = Err(KvError::Unavailable(why));
        answer(batch, &failed);
        answer(lost, &failed);
    }

    /// Goes on from the content of the file, if it can be opened.
    fn recover(&mut self) {
        let opened = (self.opener)().map_err(redb::Error::from);
        let read = opened.and_then(|database| Ok((read(&database, &self.time)?, database)));
        match read {
            Ok((held, database)) => {
                self.database = Some(database);
                let mut write_state = self.write_state.lock();
                self.memory.replace(held);
                write_state.closed = None;
                drop(write_state);
                tracing::info!("plugin key-value store is available again");
            }
            Err(error) => tracing::debug!(%error, "plugin key-value store is still unavailable"),
        }
    }
}

/// Answers every job; a caller may have gone away.
fn answer(jobs: Vec<PendingCommit>, result: &Result<(), KvError>) {
    for job in jobs {
        let _ = job.done.send(result.clone());
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    // Refuses a file that another program changed. Without this check, reading it would end the process.
    builder.set_cache_size(PAGES).set_check_integrity_on_open(true);
    builder
}

/// All rows that have not expired.
fn read(database: &Database, time: &Time) -> Result<Vec<StoredKey>, redb::Error> {
    let transaction = database.begin_read()?;
    let names: Vec<String> = transaction.list_tables()?.map(|table| table.name().to_owned()).collect();
    if let Some(other) = names.iter().find(|name| *name != TABLE.name()) {
        return Err(redb::Error::Corrupted(format!("a database of another program, with a table {other:?}")));
    }
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let now = millis(time.since_1970());
    let mut held = Vec::new();
    for row in transaction.open_table(TABLE)?.iter()? {
        let (key, row) = row?;
        let ((space, key), (end, value)) = (key.value(), row.value());
        if end > now {
            let ttl = (end != NEVER).then(|| Duration::from_millis(end - now));
            held.push(StoredKey { space: space.to_owned(), key: key.to_owned(), value: value.into(), ttl });
        }
    }
    Ok(held)
}

fn open_error(path: &Path, error: redb::Error) -> OpenError {
    let path = path.to_owned();
    match error {
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => OpenError::InUse(path),
        redb::Error::Io(error) if error.kind() != io::ErrorKind::InvalidData => OpenError::File { path, error },
        redb::Error::Io(error) => OpenError::Invalid { path, why: format!("another kind of file ({error})") },
        redb::Error::Corrupted(why) => OpenError::Invalid { path, why },
        other => OpenError::Invalid { path, why: other.to_string() },
    }
}

fn millis(since_1970: Duration) -> u64 {
    u64::try_from(since_1970.as_millis()).unwrap_or(NEVER)
}

//! Reloads certificates while the node runs. The files are checked every second and read when they differ from the
//! loaded ones and two checks in a row saw the same state. An invalid pair is logged, and the old one stays in use.
//!
//! Polls the files instead of watching the directory, because renewal tools swap symbolic links or use network file
//! systems. Checking two files per listener costs almost nothing.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::{Certificate, read};
use crate::config::TlsFiles;
use crate::server::{Gateway, stopped};
use crate::telemetry::names;
use crate::vital::Vitals;

/// Interval of the checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// State of the two files: device, inode, length and change time of each; `None` for a file that cannot be examined.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FileState([Option<[i128; 5]>; 2]);

/// States of the files seen so far.
#[derive(Debug)]
pub(super) struct FileStates {
    /// State at the last read, successful or not.
    tried: FileState,
    /// State at the last check.
    last: FileState,
}

impl FileStates {
    pub(super) fn now(files: &TlsFiles) -> Self {
        let stamp = FileState::of(files);
        Self { tried: stamp.clone(), last: stamp }
    }
}

impl FileState {
    fn of(files: &TlsFiles) -> Self {
        let stamp = |path: &Path| {
            let meta = std::fs::metadata(path).ok()?;
            Some([
                meta.dev().into(),
                meta.ino().into(),
                meta.len().into(),
                meta.mtime().into(),
                meta.mtime_nsec().into(),
            ])
        };
        Self([stamp(&files.cert), stamp(&files.key)])
    }
}

/// Checks `certificates` until the gateway stops.
pub(in crate::server) fn spawn(gateway: &Arc<Gateway>, certificates: Vec<Arc<Certificate>>, vitals: &Vitals) {
    if certificates.is_empty() {
        return;
    }
    gateway.tasks.begin();
    let gateway = Arc::clone(gateway);
    let certificates: Arc<[_]> = certificates.into();
    let renewal = async move {
        let mut stop = gateway.stop.subscribe();
        let mut checks = interval(CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopped(&mut stop) => break,
                _ = checks.tick() => {}
            }
            let certificates = Arc::clone(&certificates);
            let check = move || certificates.iter().for_each(|certificate| certificate.reload_if_changed());
            // A check that panicked has changed nothing; the next one follows.
            let _ = tokio::task::spawn_blocking(check).await;
        }
        gateway.tasks.end();
    };
    tokio::spawn(vitals.run("certificate renewal", renewal));
}

impl Certificate {
    /// Reloads the files if they have changed and are stable.
    pub(super) fn reload_if_changed(&self) {
        let mut seen = self.seen.lock();
        let now = FileState::of(&self.files);
        let is_changing = now != seen.last;
        seen.last = now.clone();
        if is_changing || now == seen.tried {
            return;
        }
        seen.tried = now;
        let outcome = match read(&self.files, self.is_http) {
            Ok(config) => {
                self.config.store(Arc::new(config));
                tracing::info!(cert = %self.files.cert.display(), "certificate renewed");
                "live"
            }
            Err(error) => {
                tracing::error!(%error, "certificate renewal failed: the previous certificate stays in use");
                "rejected"
            }
        };
        metrics::counter!(names::TLS_RELOADS, "outcome" => outcome).increment(1);
    }
}

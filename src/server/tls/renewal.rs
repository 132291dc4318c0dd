//! Takes new certificates while the node runs: the files are looked at every second, and read when they differ from those
//! in use and two looks in a row saw the same. A pair that does not serve is told and leaves the old one in place.
//!
//! Looks at the files and not at events of the directory: what renews certificates swaps symbolic links, or files on a
//! disk of another machine, and two files a listener cost nothing to look at.

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

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// What tells one state of the two files from another: device, inode, length and time of change of each; `None` for one
/// that cannot be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp([Option<[i128; 5]>; 2]);

/// What was seen of the files.
#[derive(Debug)]
pub(super) struct Seen {
    /// When they were read last, whether that served or not.
    tried: Stamp,
    /// By the last look.
    last: Stamp,
}

impl Seen {
    pub(super) fn now(files: &TlsFiles) -> Self {
        let stamp = Stamp::of(files);
        Self { tried: stamp.clone(), last: stamp }
    }
}

impl Stamp {
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

/// Looks after `certificates` until the gateway stops.
pub(in crate::server) fn spawn(gateway: &Arc<Gateway>, certificates: Vec<Arc<Certificate>>, vitals: &Vitals) {
    if certificates.is_empty() {
        return;
    }
    gateway.tasks.begin();
    let gateway = Arc::clone(gateway);
    let certificates: Arc<[_]> = certificates.into();
    let renewal = async move {
        let mut stop = gateway.stop.subscribe();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopped(&mut stop) => break,
                _ = looks.tick() => {}
            }
            let certificates = Arc::clone(&certificates);
            let look = move || certificates.iter().for_each(|certificate| certificate.look());
            // A look that panicked has changed nothing; the next one comes.
            let _ = tokio::task::spawn_blocking(look).await;
        }
        gateway.tasks.end();
    };
    tokio::spawn(vitals.run("certificate renewal", renewal));
}

impl Certificate {
    /// Reads the files again if they have changed and stand still.
    pub(super) fn look(&self) {
        let mut seen = self.seen.lock();
        let now = Stamp::of(&self.files);
        let moved = now != seen.last;
        seen.last = now.clone();
        if moved || now == seen.tried {
            return;
        }
        seen.tried = now;
        let outcome = match read(&self.files, self.is_http) {
            Ok(config) => {
                self.config.store(Arc::new(config));
                tracing::info!(cert = %self.files.cert.display(), "a new certificate serves");
                "live"
            }
            Err(error) => {
                tracing::error!(%error, "the certificate stays as it was");
                "rejected"
            }
        };
        metrics::counter!(names::TLS_RELOADS, "outcome" => outcome).increment(1);
    }
}

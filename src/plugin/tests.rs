//! The host with guests written for it: good, broken and hostile ones. No guest toolchain is needed.

mod abi;
mod access;
mod blame;
mod bounds;
mod guards;
mod guests;
mod interfaces;
mod limits;
mod reload;
mod retry;
mod roles;
mod rollback;
mod samples;
mod swap;
mod worst;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use super::host::{Tasks, WasmHost};
use super::{Call, Claim, Judgement, Options, PluginHost, Status, Transport};
use crate::config::Plugins;
use crate::id::ConnectionId;
use crate::message::{Entries, Envelope, Message, Origin, Publication, Target};

/// A host with a directory of its own.
struct Bench {
    dir: TempDir,
    host: Arc<WasmHost>,
    /// Each call comes from a source of its own.
    source: AtomicU64,
    _tasks: Tasks,
}

impl Bench {
    /// With these files in the directory from the start.
    async fn with(files: &[(&str, &[u8])]) -> Self {
        Self::configured(files, |_| {}).await
    }

    /// Like `with`, under another configuration.
    async fn configured(files: &[(&str, &[u8])], change: impl FnOnce(&mut Plugins)) -> Self {
        let dir = folder(files);
        let mut config = config(dir.path());
        change(&mut config);
        Self::loaded(dir, &config, Options::default()).await
    }

    /// Like `with`, on a node with these options.
    async fn optioned(files: &[(&str, &[u8])], options: Options) -> Self {
        let dir = folder(files);
        let config = config(dir.path());
        Self::loaded(dir, &config, options).await
    }

    async fn loaded(dir: TempDir, config: &Plugins, options: Options) -> Self {
        let (host, tasks) = WasmHost::load(config, options).await.unwrap();
        Self { dir, host: Arc::new(host), source: AtomicU64::new(0), _tasks: tasks }
    }

    /// Replaces a file as editors and deployments do: written under another name, then renamed.
    async fn put(&self, name: &str, bytes: &[u8]) {
        let aside = self.dir.path().join(format!(".{name}"));
        std::fs::write(&aside, bytes).unwrap();
        std::fs::rename(aside, self.dir.path().join(name)).unwrap();
        self.host.scan().await;
    }

    async fn delete(&self, name: &str) {
        std::fs::remove_file(self.dir.path().join(name)).unwrap();
        self.host.scan().await;
    }

    fn status(&self, name: &str) -> Status {
        self.host.status().into_iter().find(|status| &*status.name == name).unwrap()
    }

    fn next_source(&self) -> String {
        format!("source {}", self.source.fetch_add(1, Ordering::Relaxed))
    }

    async fn judge(&self) -> Judgement {
        self.judge_for(&self.next_source()).await
    }

    /// Judges a push of the API key of this name.
    async fn judge_for(&self, key: &str) -> Judgement {
        let mut batch = [Envelope { back_end: Some(key.into()), ..envelope("chat") }];
        self.host.judge(&mut batch).await.remove(0)
    }

    /// The code of an admission: `"200"` or the refusal's.
    async fn admit(&self) -> String {
        let claim = Claim { uid: Some("1074".into()), ..Claim::default() };
        let transport = Transport { remote: self.next_source(), ..Transport::default() };
        match self.host.admit(transport, claim).await {
            Ok(_) => "200".into(),
            Err(refusal) => refusal.code.to_string(),
        }
    }

    /// Code and message of the answer to `key`.
    async fn handle(&self, key: &str) -> (String, String) {
        let call = Call { remote: self.next_source(), ..call(key) };
        let answer = self.host.handle(call).await.unwrap();
        // A caller gets a fixed text: details of the failure are for the operator only.
        let told = (answer.message == super::UNAVAILABLE).then(|| self.host.take_last_failure()).flatten();
        (answer.code.to_string(), told.unwrap_or(answer.message))
    }
}

/// A folder with these files.
fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

fn config(dir: &Path) -> Plugins {
    Plugins {
        dir: dir.to_owned(),
        cache: std::path::PathBuf::new(),
        settle: Duration::from_millis(150),
        // Longer than any test: tests request each scan.
        rescan: Duration::from_secs(3_600),
        allow_remove: Vec::new(),
        http_ca: std::path::PathBuf::new(),
        instances: 64,
        ..crate::config::Config::default().plugins
    }
}

fn envelope(action: &str) -> Envelope {
    let message = Message { action: action.to_owned(), ..Message::default() };
    Publication::new(message, Target::Everyone, Origin::Http).into_envelope(1, 0)
}

fn call(key: &str) -> Call {
    Call {
        key: key.to_owned(),
        data: Entries::new(),
        caller: None,
        cid: ConnectionId::new(1).unwrap(),
        remote: String::new(),
    }
}

fn passed() -> Judgement {
    Judgement::Pass { replaced_by: Vec::new() }
}

/// The code with which a publish was rejected, or 503 if it was not judged.
fn rejected(judgement: &Judgement) -> Option<&str> {
    match judgement {
        Judgement::Reject { refusal, .. } => Some(refusal.code.as_str()),
        Judgement::Unjudged(_) => Some("503"),
        _ => None,
    }
}

//! Guards that are broken or gone when the node starts, and changes without a restart: keys, circuits.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::guests::{self, ADMIT, ALLOW, FINE, TRAP};
use super::{Bench, config, envelope, passed, rejected};
use crate::config::Plugins;
use crate::plugin::check::check_dir;
use crate::plugin::host::WasmHost;
use crate::plugin::loader::trust::SigningKey;
use crate::plugin::{Judgement, Options, PluginHost};

/// A plugin directory for several nodes, one after the other.
pub(super) struct Place {
    dir: TempDir,
    pub(super) cache: TempDir,
}

impl Place {
    pub(super) fn new(files: &[(&str, &[u8])]) -> Self {
        let own = || {
            use std::os::unix::fs::PermissionsExt;
            let dir = tempfile::tempdir().unwrap();
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
            dir
        };
        let place = Self { dir: own(), cache: own() };
        for (name, bytes) in files {
            place.put(name, bytes);
        }
        place
    }

    pub(super) fn put(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn config(&self) -> Plugins {
        Plugins { cache: self.cache.path().to_owned(), ..config(self.dir.path()) }
    }

    pub(super) async fn start(&self) -> Bench {
        self.start_with(|_| {}).await
    }

    pub(super) async fn start_with(&self, change: impl FnOnce(&mut Plugins)) -> Bench {
        let mut config = self.config();
        change(&mut config);
        let (host, tasks) = WasmHost::load(&config, Options::default()).await.unwrap();
        Bench { dir: tempfile::tempdir().unwrap(), host: Arc::new(host), source: 0.into(), _tasks: tasks }
    }
}

/// Results of an admission and of a publish.
async fn met(bench: &Bench) -> (String, Judgement) {
    (bench.admit().await, bench.judge().await)
}

fn is_open(judgement: &Judgement) -> bool {
    *judgement == passed()
}

#[tokio::test]
async fn unreadable_plugin_blocks_every_role_it_may_have() {
    let files: [(&str, &[u8]); 2] = [("a.wasm", &guests::auth(ADMIT)), ("b.wasm", b"half a file")];
    for (manifest, admitted, passes) in [
        ("", "503", false),
        ("on_failure = \"allow\"", "503", true),
        ("roles = [\"filter\"]", "200", false),
        ("roles = [\"filter\"]\n[match]\nactions = [\"other\"]", "200", true),
        ("roles = [\"handler\", \"events\"]", "200", true),
        ("ordr = 1", "503", false),
    ] {
        let place = Place::new(&files);
        place.put("b.toml", manifest.as_bytes());
        let (admission, judgement) = met(&place.start().await).await;
        assert_eq!((&*admission, is_open(&judgement)), (admitted, passes), "{manifest}");
    }
}

#[tokio::test]
async fn plugin_without_its_manifest_keeps_blocking_after_restart() {
    let place = Place::new(&[("f.wasm", &guests::filter(ALLOW)), ("f.toml", b"[match]\nactions = [\"chat\"]")]);
    assert_eq!(place.start().await.judge().await, passed());
    std::fs::remove_file(place.path("f.toml")).unwrap();
    for _ in 0..2 {
        let bench = place.start().await;
        assert_eq!((bench.status("f").state.as_str(), rejected(&bench.judge().await)), ("rejected", Some("503")));
        assert!(bench.status("f").rejected.unwrap().reason.contains("f.toml is gone"));
    }
    let allowed = place.start_with(|config| config.allow_remove = vec!["f".into()]).await;
    assert_eq!((allowed.status("f").state.as_str(), allowed.judge().await), ("live", passed()));
}

#[tokio::test]
async fn blocking_plugins_are_remembered_after_restart() {
    let place = Place::new(&[
        ("a.wasm", &guests::auth(ADMIT)),
        ("f.wasm", &guests::filter(ALLOW)),
        ("f.toml", b"[match]\nactions = [\"chat\"]"),
        ("h.wasm", &guests::handler("ask", "", "", FINE)),
    ]);
    let first = place.start().await;
    assert_eq!(met(&first).await, ("200".into(), passed()));
    drop(first);

    // Broken: the remembered rules hold, regardless of the manifest. A new plugin that never served guards nothing.
    place.put("f.wasm", b"half a file");
    place.put("f.toml", b"no toml at all");
    place.put("h.wasm", b"half a file");
    place.put("new.wasm", b"garbage");
    for _ in 0..2 {
        let bench = place.start().await;
        let (admission, judgement) = met(&bench).await;
        assert_eq!((admission.as_str(), rejected(&judgement)), ("200", Some("503")));
        assert_eq!(bench.host.judge(&mut [envelope("other")]).await, [passed()]);
        assert_eq!((bench.status("f").state.as_str(), bench.status("f").roles), ("rejected", vec!["filter"]));
        assert!(bench.host.faults()[0].contains("plugin f: its file is refused"), "{:?}", bench.host.faults());
    }

    // Gone: the gates stay shut until the operator allows it, or a good file is back.
    for name in ["f.wasm", "f.toml", "a.wasm", "h.wasm", "new.wasm"] {
        std::fs::remove_file(place.path(name)).unwrap();
    }
    let bench = place.start().await;
    let (admission, judgement) = met(&bench).await;
    assert_eq!((admission.as_str(), rejected(&judgement)), ("503", Some("503")));
    assert_eq!((bench.status("a").state.as_str(), bench.status("f").state.as_str()), ("missing", "missing"));
    drop(bench);
    place.put("a.wasm", &guests::auth(ADMIT));
    let bench = place.start_with(|config| config.allow_remove = vec!["f".to_owned()]).await;
    assert_eq!(met(&bench).await, ("200".into(), passed()));
    drop(bench);
    assert_eq!(met(&place.start().await).await, ("200".into(), passed()), "forgotten for good");
}

#[tokio::test]
async fn plugin_with_changed_role_is_refused_after_restart() {
    let place = Place::new(&[("a.wasm", &guests::auth(ADMIT)), ("f.wasm", &guests::filter(ALLOW))]);
    drop(place.start().await);
    place.put("f.wasm", &guests::handler("ask", "", "", FINE));
    let bench = place.start().await;
    let reason = bench.status("f").rejected.unwrap().reason;
    assert!(reason.contains("does not export the role filter"), "{reason}");
    assert_eq!(rejected(&bench.judge().await), Some("503"));
    drop(bench);
    place.put("f.toml", b"enabled = false");
    assert!(is_open(&place.start().await.judge().await), "the operator's word");
}

#[tokio::test]
async fn manifest_with_filter_role_blocks_without_its_file() {
    let place = Place::new(&[("a.wasm", &guests::auth(ADMIT)), ("f.toml", b"roles = [\"filter\"]")]);
    let bench = place.start().await;
    assert_eq!((bench.status("f").state.as_str(), rejected(&bench.judge().await)), ("missing", Some("503")));
    drop(bench);
    place.put("f.toml", b"");
    let other = Place::new(&[("a.wasm", &guests::auth(ADMIT)), ("f.toml", b"order = 5")]);
    assert!(is_open(&other.start().await.judge().await), "a manifest alone that says nothing of it");
}

#[tokio::test]
async fn component_with_other_roles_than_its_manifest_is_refused() {
    let bench = Bench::with(&[("f.wasm", &guests::filter(ALLOW)), ("f.toml", b"roles = [\"filter\", \"auth\"]")]).await;
    let reason = bench.status("f").rejected.unwrap().reason;
    assert_eq!(reason, "f.toml: roles: expected [\"filter\"], as the file exports, got [\"auth\", \"filter\"]");
    bench.put("f.toml", b"roles = [\"filter\"]").await;
    assert_eq!(bench.status("f").state.as_str(), "live");
    bench.put("f.toml", b"roles = [\"guard\"]").await;
    let reason = bench.status("f").rejected.unwrap().reason;
    assert!(reason.contains("unknown role \"guard\"; valid are auth, filter, handler, events"), "{reason}");
}

#[tokio::test]
async fn signing_key_added_later_admits_the_refused_file() {
    let key = SigningKey::parse(&SigningKey::generate().unwrap()).unwrap();
    let filter = guests::filter(ALLOW);
    let place = Place::new(&[
        ("a.wasm", &guests::auth(ADMIT)),
        ("a.toml", b"roles = [\"auth\"]"),
        ("f.wasm", &filter),
        ("f.wasm.sig", key.sign(&filter).as_bytes()),
        ("f.toml", b"roles = [\"filter\"]"),
    ]);
    let other = SigningKey::parse(&SigningKey::generate().unwrap()).unwrap();
    let bench = place.start_with(|config| config.signing_keys = vec![other.public()]).await;
    assert_eq!((bench.status("f").state.as_str(), rejected(&bench.judge().await)), ("rejected", Some("503")));
    let keys = Plugins { signing_keys: vec![other.public(), key.public()], ..place.config() };
    bench.host.set_trust(&keys).await;
    assert_eq!((bench.status("f").state.as_str(), bench.judge().await), ("live", passed()));
    assert_eq!(bench.status("a").state.as_str(), "rejected", "it is signed by nobody");

    bench.host.set_trust(&Plugins { signing_keys: vec![other.public()], ..place.config() }).await;
    assert_eq!(bench.status("f").state.as_str(), "live", "what serves goes on");
}

#[tokio::test]
async fn an_open_circuit_of_an_auth_plugin_keeps_traffic_away_until_it_may_be_asked_again() {
    let bench = Bench::configured(&[("a.wasm", &guests::auth(TRAP))], |config| {
        config.breaker.rest = Duration::from_secs(3_600);
    })
    .await;
    assert!(bench.host.faults().is_empty());
    for _ in 0..10 {
        assert_eq!(bench.admit().await, "503");
    }
    assert_eq!(bench.status("a").circuit, Some("open"));
    let faults = bench.host.faults();
    assert!(faults.iter().any(|fault| fault.contains("plugin a: its circuit is open")), "{faults:?}");
    let bench =
        Bench::configured(&[("a.wasm", &guests::auth(TRAP))], |config| config.breaker.rest = Duration::ZERO).await;
    for _ in 0..10 {
        bench.admit().await;
    }
    assert_eq!((bench.status("a").circuit, bench.host.faults().len()), (Some("open"), 0), "somebody has to ask");
}

#[tokio::test]
async fn check_reports_broken_symlinks() {
    let place = Place::new(&[("a.wasm", &guests::auth(ADMIT))]);
    for link in ["f.wasm", "a.wasm.sig"] {
        std::os::unix::fs::symlink(Path::new("nowhere"), place.path(link)).unwrap();
    }
    let reports = check_dir(&place.config()).await.unwrap();
    let faults: Vec<_> = reports.iter().map(|report| (report.name.as_str(), report.faults.join("; "))).collect();
    assert_eq!(
        faults,
        [
            ("a", "a.wasm.sig is a dangling symbolic link".to_owned()),
            ("f", "f.wasm is a dangling symbolic link".to_owned())
        ]
    );
}

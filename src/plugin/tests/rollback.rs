//! Rollbacks survive a restart: the version that serves then, its status, and the end of a rollback.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::guards::Place;
use super::guests::{self, ADMIT, ALLOW, TRAP};
use super::swap::{codes, until};
use super::{Bench, rejected};
use crate::plugin::loader::trust::SigningKey;
use crate::plugin::{Judgement, PluginCommand, PluginHost, Status};

/// A good filter was replaced by a bad one, which was rolled back.
async fn rolled_back(place: &Place) -> (Bench, Status) {
    rolled_back_with(place, |_| {}).await
}

async fn rolled_back_with(place: &Place, change: impl FnOnce(&mut crate::config::Plugins)) -> (Bench, Status) {
    place.put("f.wasm", &guests::stamp(451));
    let bench = place.start_with(change).await;
    place.put("f.wasm", &guests::filter(TRAP));
    bench.host.scan().await;
    assert_eq!(bench.status("f").version, 2);
    for _ in 0..10 {
        assert!(matches!(rejected(&bench.judge().await), Some("503" | "451")), "the version before may serve again");
    }
    let status = until(&bench, "f", |status| status.version == 1).await;
    (bench, status)
}

/// The part of a status that a restart does not change.
fn told(status: &Status) -> Value {
    let all = serde_json::to_value(status).unwrap();
    let fields = ["state", "roles", "version", "hash", "probation", "rejected"];
    let mut told: serde_json::Map<_, _> =
        fields.iter().map(|field| ((*field).to_owned(), all[*field].clone())).collect();
    // The previous version is asked beside the calls, so their number at the rollback varies.
    if let Some(Value::String(reason)) = told.get_mut("rejected").and_then(|rejected| rejected.get_mut("reason")) {
        reason.retain(|c| !c.is_ascii_digit());
    }
    told.into()
}

async fn code(bench: &Bench) -> String {
    match bench.judge().await {
        Judgement::Reject { refusal, .. } => refusal.code.to_string(),
        Judgement::Unjudged(_) => "503".to_owned(),
        other => format!("{other:?}"),
    }
}

/// The components that are kept.
fn kept(place: &Place) -> Vec<PathBuf> {
    let known = fs::read_dir(place.cache.path().join("known")).unwrap();
    let folders = known.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    folders.flat_map(|folder| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path())).collect()
}

#[tokio::test]
async fn rollback_holds_across_restarts_until_the_file_changes() {
    let place = Place::new(&[]);
    let (bench, before) = rolled_back(&place).await;
    drop(bench);
    for _ in 0..2 {
        let bench = place.start().await;
        assert_eq!(told(&bench.status("f")), told(&before));
        assert_eq!((code(&bench).await.as_str(), bench.status("f").lost), ("451", None));
        // The same bytes once more are no change.
        place.put("f.wasm", &guests::filter(TRAP));
        bench.host.scan().await;
        assert_eq!((told(&bench.status("f")), code(&bench).await.as_str()), (told(&before), "451"));
    }
    let bench = place.start().await;
    place.put("f.wasm", &guests::stamp(452));
    bench.host.scan().await;
    let status = bench.status("f");
    assert_eq!((status.version, status.previous, status.rejected), (2, Some(before.hash), None));
    assert_eq!(kept(&place).len(), 2, "what serves and what served before");
    drop(bench);
    let bench = place.start().await;
    assert_eq!((code(&bench).await.as_str(), bench.status("f").rejected), ("452", None));
    assert_eq!(kept(&place).len(), 1);
}

#[tokio::test]
async fn file_changed_while_the_node_is_down_is_loaded_after_a_rollback() {
    let place = Place::new(&[]);
    drop(rolled_back(&place).await);
    place.put("f.wasm", &guests::stamp(452));
    let bench = place.start().await;
    assert_eq!((code(&bench).await.as_str(), bench.status("f").rejected), ("452", None));
    drop(bench);

    let place = Place::new(&[]);
    drop(rolled_back(&place).await);
    place.put("f.toml", b"order = 1");
    let bench = place.start().await;
    assert_eq!((code(&bench).await.as_str(), bench.status("f").rejected), ("503", None), "a manifest is a change, too");
    drop(bench);

    // Gone, and back later: earlier results for the file are forgotten.
    let place = Place::new(&[]);
    drop(rolled_back(&place).await);
    fs::remove_file(place.path("f.wasm")).unwrap();
    let bench = place.start().await;
    assert_eq!((bench.status("f").state.as_str(), code(&bench).await.as_str()), ("missing", "503"));
    place.put("f.wasm", &guests::filter(TRAP));
    bench.host.scan().await;
    assert_eq!((bench.status("f").state.as_str(), code(&bench).await.as_str()), ("live", "503"));
    assert_eq!(kept(&place).len(), 1);
}

#[tokio::test]
async fn reload_command_loads_a_rolled_back_file_after_a_restart() {
    let place = Place::new(&[]);
    let (bench, before) = rolled_back(&place).await;
    let refused = before.rejected.clone().unwrap().hash;
    drop(bench);
    let bench = place.start().await;
    let status = bench.host.execute("f", PluginCommand::Reload).await.unwrap();
    let expected = (2, &refused, true, Some(&before.hash), None);
    assert_eq!((status.version, &status.hash, status.probation, status.previous.as_ref(), status.rejected), expected);
    for _ in 0..10 {
        assert!(matches!(code(&bench).await.as_str(), "503" | "451"), "the version before may serve again");
    }
    let again = until(&bench, "f", |status| status.version == 1).await;
    assert_eq!(told(&again), told(&before));
    drop(bench);

    // A rollback by the operator survives a restart. A run in which the plugin is disabled does not forget it.
    let bench = place.start().await;
    bench.host.execute("f", PluginCommand::Disable).await.unwrap();
    drop(bench);
    let bench = place.start().await;
    assert_eq!(told(&bench.status("f")), told(&before));
    place.put("f.wasm", &guests::stamp(452));
    bench.host.scan().await;
    let taken_back = bench.host.execute("f", PluginCommand::RollBack).await.unwrap();
    assert_eq!(taken_back.rejected.as_ref().unwrap().reason, "rolled back by the operator");
    drop(bench);
    let bench = place.start().await;
    assert_eq!((told(&bench.status("f")), code(&bench).await.as_str()), (told(&taken_back), "451"));
}

#[tokio::test]
async fn rollback_of_a_manifest_or_a_canary_survives_a_restart() {
    let place = Place::new(&[("f.toml", b"canary = \"30%\""), ("f.wasm", &guests::stamp(451))]);
    let bench = place.start().await;
    place.put("f.wasm", &guests::filter(TRAP));
    bench.host.scan().await;
    assert!(codes(&bench).await.iter().any(|code| code == "503"));
    let before = until(&bench, "f", |status| status.canary.is_none()).await;
    assert!(before.rejected.as_ref().unwrap().reason.starts_with("rolled back"));
    drop(bench);
    let bench = place.start().await;
    assert_eq!(told(&bench.status("f")), told(&before));
    assert!(codes(&bench).await.iter().all(|code| code == "451"), "the share is nobody's");
    drop(bench);

    let place = Place::new(&[("f.wasm", &guests::stamp(451)), ("f.toml", b"order = 7")]);
    let bench = place.start().await;
    place.put("f.toml", b"order = 8\nroles = [\"filter\"]\n[match]\nactions = [\"other\"]");
    bench.host.scan().await;
    assert_eq!(bench.judge().await, super::passed());
    let before = bench.host.execute("f", PluginCommand::RollBack).await.unwrap();
    drop(bench);
    let bench = place.start().await;
    assert_eq!((told(&bench.status("f")), code(&bench).await.as_str()), (told(&before), "451"));
}

type Spoil = fn(&PathBuf);

#[tokio::test]
async fn file_is_loaded_when_its_kept_version_is_unusable() {
    let spoil: [(Spoil, &str); 3] = [
        (|file| fs::remove_file(file).unwrap(), "cannot be read"),
        (|file| fs::write(file, "half").unwrap(), "expected the digest"),
        (
            |file| fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap(),
            "only this user may",
        ),
    ];
    for (spoil, words) in spoil {
        let place = Place::new(&[]);
        let (bench, before) = rolled_back(&place).await;
        drop(bench);
        kept(&place).iter().for_each(spoil);
        let bench = place.start().await;
        let status = bench.status("f");
        let lost = status.lost.unwrap();
        assert!(lost.hash == before.hash && lost.reason.contains(words), "{lost:?}");
        assert_eq!((status.state.as_str(), &status.hash), ("live", &before.rejected.unwrap().hash), "{words}");
        // Shown for as long as this file serves.
        bench.host.scan().await;
        assert!(bench.status("f").lost.is_some());
        place.put("f.wasm", &guests::stamp(452));
        bench.host.scan().await;
        assert_eq!((bench.status("f").lost, code(&bench).await.as_str()), (None, "452"));
    }
}

#[tokio::test]
async fn rollback_without_cache_is_lost_at_restart() {
    let place = Place::new(&[]);
    drop(rolled_back_with(&place, |config| config.cache = PathBuf::new()).await);
    let bench = place.start_with(|config| config.cache = PathBuf::new()).await;
    assert_eq!((code(&bench).await.as_str(), bench.status("f").rejected), ("503", None));
    // Nothing is kept: one byte is less than any component has.
    let place = Place::new(&[]);
    drop(rolled_back_with(&place, |config| config.cache_bytes = 1).await);
    let bench = place.start().await;
    assert!(bench.status("f").lost.unwrap().reason.contains("cannot be read"));
}

#[tokio::test]
async fn kept_version_is_refused_without_matching_pin() {
    let (good, bad) = (guests::stamp(451), guests::filter(TRAP));
    let pin = |bytes: &[u8]| format!("sha256 = \"{}\"", crate::plugin::digest::of(bytes)).into_bytes();
    for (first, refused_now) in [(pin(&good), false), (Vec::new(), true)] {
        let place = Place::new(&[("f.wasm", &good), ("f.toml", &first)]);
        let bench = place.start().await;
        place.put("f.wasm", &bad);
        place.put("f.toml", &pin(&bad));
        bench.host.scan().await;
        let before = bench.host.execute("f", PluginCommand::RollBack).await.unwrap();
        drop(bench);
        let bench = place.start_with(|config| config.require_hash = true).await;
        let status = bench.status("f");
        if refused_now {
            let lost = status.lost.unwrap();
            assert!(lost.reason.contains("plugins.require_hash asks for a pin"), "{lost:?}");
            assert_eq!((status.hash, status.rejected), (before.rejected.unwrap().hash, None), "the file is pinned");
        } else {
            assert_eq!((told(&status), code(&bench).await.as_str()), (told(&before), "451"));
        }
    }
}

#[tokio::test]
async fn kept_version_is_refused_without_trusted_signature() {
    let key = || SigningKey::parse(&SigningKey::generate().unwrap()).unwrap();
    let (own, other) = (key(), key());
    let (good, bad) = (guests::stamp(451), guests::filter(TRAP));
    let place = Place::new(&[("f.wasm", &good), ("f.wasm.sig", own.sign(&good).as_bytes())]);
    let trust = |key: &SigningKey| {
        let key = key.public();
        move |config: &mut crate::config::Plugins| config.signing_keys = vec![key]
    };
    let bench = place.start_with(trust(&own)).await;
    place.put("f.wasm", &bad);
    place.put("f.wasm.sig", own.sign(&bad).as_bytes());
    bench.host.scan().await;
    let before = bench.host.execute("f", PluginCommand::RollBack).await.unwrap();
    drop(bench);
    let bench = place.start_with(trust(&own)).await;
    assert_eq!((told(&bench.status("f")), code(&bench).await.as_str()), (told(&before), "451"));
    drop(bench);
    // The key was withdrawn: neither version serves, and the gate is shut.
    let bench = place.start_with(trust(&other)).await;
    let status = bench.status("f");
    assert!(status.lost.unwrap().reason.contains("f.wasm.sig does not verify"));
    assert!(status.rejected.unwrap().reason.contains("f.wasm.sig does not verify"));
    assert_eq!((status.state.as_str(), code(&bench).await.as_str()), ("rejected", "503"));
}

#[tokio::test]
async fn changed_trust_does_not_load_a_rolled_back_file() {
    let place = Place::new(&[("a.wasm", &guests::auth(ADMIT))]);
    let (bench, before) = rolled_back(&place).await;
    let config = crate::config::Plugins { require_hash: true, ..place.config() };
    bench.host.set_trust(&config).await;
    assert_eq!((told(&bench.status("f")), code(&bench).await.as_str()), (told(&before), "451"));
}

#[tokio::test]
async fn file_refused_after_a_rollback_is_reported_at_the_start() {
    let place = Place::new(&[]);
    let (bench, before) = rolled_back(&place).await;
    place.put("f.wasm", b"garbage");
    bench.host.scan().await;
    assert_eq!((code(&bench).await.as_str(), bench.status("f").hash), ("451", before.hash));
    drop(bench);
    let bench = place.start().await;
    assert_eq!(
        (bench.status("f").state.as_str(), code(&bench).await.as_str()),
        ("rejected", "503"),
        "as any refused file"
    );
    place.put("f.wasm", &guests::filter(ALLOW));
    bench.host.scan().await;
    assert_eq!(bench.judge().await, super::passed());
}

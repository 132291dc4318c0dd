//! Valid manifests, and the faults of invalid ones.

use std::time::Duration;

use super::*;
use crate::message::Origin;
use crate::plugin::Role;

#[test]
fn empty_manifest_has_safe_defaults() {
    let manifest = Manifest::parse("", &PluginCaps::default()).unwrap();
    assert_eq!(manifest, Manifest::default());
    assert!(manifest.enabled && !manifest.allow_on_failure && manifest.grants.is_empty());
    assert_eq!(manifest.settings.json(), "{}");
}

#[test]
fn manifest_with_every_key_is_parsed() {
    let text = r#"
        order = 10
        on_failure = "allow"
        grants = ["kv", "outbox"]
        [match]
        actions = ["chat", "9*"]
        origins = ["client"]
        [limits]
        cpu = "20ms"
        memory = "32MiB"
        pushes = 5
        kv_bytes = "1MiB"
        instances = 3
        [limits.auth]
        cpu = "30ms"
        [limits.start]
        wall = "10s"
        [settings]
        words = ["a", "b"]
        mask = "*"
        strict = true
    "#;
    let manifest = Manifest::parse(text, &PluginCaps::default()).unwrap();
    assert!(manifest.allow_on_failure);
    assert_eq!(manifest.limits.memory, Some(32 << 20));
    assert_eq!(manifest.limits.every.cpu, Some(Duration::from_millis(20)));
    assert_eq!(manifest.limits.roles[Role::Auth as usize].cpu, Some(Duration::from_millis(30)));
    assert_eq!(manifest.limits.start.wall, Some(Duration::from_secs(10)));
    let limits = manifest.limits;
    assert_eq!((limits.pushes, limits.kv_bytes, limits.instances), (Some(5), Some(1 << 20), Some(3)));
    assert_eq!(manifest.rules.origins, [Origin::Client]);
    assert_eq!(manifest.settings.get("mask"), Some("*"));
    assert_eq!(manifest.settings.get("words"), Some(r#"["a","b"]"#));
    assert_eq!(manifest.settings.json(), r#"{"mask":"*","strict":true,"words":["a","b"]}"#);
}

#[test]
fn all_faults_are_told_at_once() {
    let text = r#"
        ordr = 1
        enabled = "yes"
        on_failure = "explode"
        canary = 5
        grants = ["disk"]
        [match]
        origin = ["client"]
        origins = ["moon"]
        [limits]
        cpu = "1h"
        memory = "lots"
        host_bytes = "1GiB"
        kv_keys = -1
        instances = 0
        [limits.filter]
        wall = "0s"
        memory = "1MiB"
    "#;
    let faults = Manifest::parse(text, &PluginCaps::default()).unwrap_err();
    let expected = [
        "unknown key ordr; valid are enabled, roles, order, on_failure, canary, sha256, grants, match, limits, http, settings",
        "enabled: expected true or false, got \"yes\"",
        "on_failure: expected one of reject, allow, got \"explode\"",
        "canary: expected a share of the senders such as \"5%\", got 5",
        "grants: unknown grant \"disk\"; valid are directory, outbox, timers, login, kv, counters, history, http",
        "unknown key match.origin; valid are actions, rooms, keys, origins",
        "match.origins: unknown origin \"moon\"; valid are client, http, broker, plugin",
        "limits.cpu: \"1h\" is more than this node allows (1s): ask for less, or raise plugins.caps.cpu",
        "unknown key limits.filter.memory; valid are cpu, wall",
        "limits.filter.wall: expected a time above 0 such as \"50ms\", got \"0s\"",
        "limits.memory: expected a size such as \"64MiB\", got \"lots\"",
        "limits.instances: expected a whole number of at least 1, got 0",
        "limits.host_bytes: \"1GiB\" is more than this node allows (64MiB): ask for less, or raise plugins.caps.host_bytes",
        "limits.kv_keys: expected a whole number of at least 0, got -1",
    ];
    assert_eq!(faults, expected);
}

#[test]
fn invalid_toml_reports_position_without_text() {
    for (text, place) in [
        ("a = ", "line 1, column "),
        ("[settings]\n# key\nsecret = \"0123456789\nmore = 1\n", "line 3, column "),
        ("[settings]\nsecret = 0123456789\n", "line 2, column "),
        ("[settings]\nsecret = \"0123456789\"\nsecret = \"0123456789\"\n", "line 3, column "),
    ] {
        let faults = Manifest::parse(text, &PluginCaps::default()).unwrap_err();
        assert!(faults.len() == 1 && faults[0].starts_with(place), "{faults:?}");
        assert!(!faults[0].contains("12345") && !faults[0].contains('\n'), "a secret is shown: {faults:?}");
    }
}

#[test]
fn every_limit_is_capped_by_the_operator_and_the_key_to_raise_is_named() {
    let caps = PluginCaps::default();
    for (key, value, cap) in [
        ("cpu", "\"2s\"", "1s"),
        ("wall", "\"1m\"", "30s"),
        ("memory", "\"513MiB\"", "512MiB"),
        ("tables", "65537", "65536"),
        ("handles", "65537", "65536"),
        ("instances", "257", "256"),
        ("recycle", "10000001", "10000000"),
        ("host_bytes", "\"65MiB\"", "64MiB"),
        ("log_bytes", "\"2MiB\"", "1MiB"),
        ("log_rate", "\"9MiB\"", "8MiB"),
        ("pushes", "10001", "10000"),
        ("kv_bytes", "\"1GiB\"", "256MiB"),
        ("kv_keys", "1000001", "1000000"),
    ] {
        let faults = Manifest::parse(&format!("[limits]\n{key} = {value}"), &caps).unwrap_err();
        let expected = format!(
            "limits.{key}: {value} is more than this node allows ({cap}): ask for less, or raise plugins.caps.{key}"
        );
        assert_eq!(faults, [expected]);
        Manifest::parse(&format!("[limits]\n{key} = {}", quoted(cap)), &caps).unwrap();
    }
    for role in ["auth", "filter", "handler", "events", "start"] {
        let faults = Manifest::parse(&format!("[limits.{role}]\ncpu = \"2s\""), &caps).unwrap_err();
        assert!(faults[0].starts_with(&format!("limits.{role}.cpu: \"2s\" is more")), "{faults:?}");
    }
}

fn quoted(value: &str) -> String {
    if value.parse::<u64>().is_ok() { value.to_owned() } else { format!("{value:?}") }
}

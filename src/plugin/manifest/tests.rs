//! What a manifest may say, and what is said of one that is wrong.

use std::time::Duration;

use super::*;
use crate::message::Origin;

#[test]
fn nothing_said_means_safe_defaults() {
    let manifest = Manifest::parse("", &Caps::default()).unwrap();
    assert_eq!(manifest, Manifest::default());
    assert!(manifest.enabled && !manifest.allow_on_failure && manifest.grants.is_empty());
    assert_eq!(manifest.settings.json(), "{}");
}

#[test]
fn everything_can_be_said() {
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
        [settings]
        words = ["a", "b"]
        mask = "*"
        strict = true
    "#;
    let manifest = Manifest::parse(text, &Caps::default()).unwrap();
    assert!(manifest.allow_on_failure);
    assert_eq!(manifest.limits.memory, Some(32 << 20));
    assert_eq!(manifest.limits.cpu, Some(Duration::from_millis(20)));
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
        grants = ["http"]
        [match]
        origin = ["client"]
        origins = ["moon"]
        [limits]
        cpu = "1h"
        memory = "lots"
    "#;
    let faults = Manifest::parse(text, &Caps::default()).unwrap_err();
    let expected = [
        "unknown key ordr; valid are enabled, order, on_failure, grants, match, limits, settings",
        "enabled: expected true or false, got \"yes\"",
        "on_failure: expected one of reject, allow, got \"explode\"",
        "grants: unknown grant \"http\"; valid are directory, outbox, kv",
        "unknown key match.origin; valid are actions, rooms, keys, origins",
        "match.origins: unknown origin \"moon\"; valid are client, http, broker, plugin",
        "limits.cpu: expected more than 0 and at most 1s, got 3600s",
        "limits.memory: expected a size such as \"64MiB\", got \"lots\"",
    ];
    assert_eq!(faults, expected);
}

#[test]
fn what_is_no_toml_is_told_by_its_place_and_not_shown() {
    for (text, place) in [
        ("a = ", "line 1, column "),
        ("[settings]\n# key\nsecret = \"0123456789\nmore = 1\n", "line 3, column "),
        ("[settings]\nsecret = 0123456789\n", "line 2, column "),
        ("[settings]\nsecret = \"0123456789\"\nsecret = \"0123456789\"\n", "line 3, column "),
    ] {
        let faults = Manifest::parse(text, &Caps::default()).unwrap_err();
        assert!(faults.len() == 1 && faults[0].starts_with(place), "{faults:?}");
        assert!(!faults[0].contains("12345") && !faults[0].contains('\n'), "a secret is shown: {faults:?}");
    }
}

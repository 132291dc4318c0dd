//! Reloads: kept and new values are checked together. Also rules that need the whole list of listeners.

use super::*;

const KEY: &str = "api: {keys: [{name: a, key: 0123456789abcdef}]}\n";

#[test]
fn reload_that_removes_keys_fails_while_old_listeners_need_them() {
    let files = Files::new(&format!("listeners:\n  - {{address: 0.0.0.0:80, serves: [api]}}\n{KEY}"));
    let loaded = files.load(None, &[]).unwrap();
    // Valid on its own: the API listens on loopback.
    files.write("s.yaml", "listeners:\n  - {address: 127.0.0.1:80, serves: [api]}\n");
    assert!(files.load(None, &[]).is_ok());
    let error = loaded.reload(&loaded.config).unwrap_err().to_string();
    assert!(error.contains("api.keys: expected at least one key") && error.contains("0.0.0.0:80"), "{error}");
    assert!(error.contains("until a restart the node keeps the old listeners[0].address"), "{error}");
    // The same move with API keys is accepted, as far as it can apply.
    files.write("s.yaml", &format!("listeners:\n  - {{address: 127.0.0.1:80, serves: [api]}}\n{KEY}"));
    let reloaded = loaded.reload(&loaded.config).unwrap();
    assert_eq!(reloaded.changes.needs_restart, ["listeners[0].address"]);
    assert_eq!((reloaded.config.listeners, reloaded.config.api), (loaded.config.listeners, loaded.config.api));
}

#[test]
fn reload_that_removes_insecure_fails_while_old_listeners_need_it() {
    let files = Files::new("listeners:\n  - {address: 0.0.0.0:80, serves: [api]}\napi: {insecure: true}\n");
    let loaded = files.load(None, &[]).unwrap();
    files.write("s.yaml", "listeners:\n  - {address: 0.0.0.0:80, serves: [ws]}\n");
    let error = loaded.reload(&loaded.config).unwrap_err().to_string();
    assert!(error.contains("api.keys") && error.contains("listeners[0].serves"), "{error}");
}

#[test]
fn live_key_needs_restart_if_its_owner_changed() {
    let key = "A".repeat(43) + "=";
    let old = format!(
        "plugins: {{dir: a, signing_keys: [\"{key}\"]}}\nbus: {{redis: {{url: \"redis://a\", password: p}}, kafka: {{brokers: a:1, password: p}}}}\n"
    );
    let files = Files::new(&old);
    let loaded = files.load(None, &[]).unwrap();
    for (new, live, waiting) in [
        (old.replace(&format!("[\"{key}\"]"), "[]"), vec!["plugins.signing_keys"], vec![]),
        (
            old.replace(&format!("[\"{key}\"]"), "[]").replace("dir: a", "dir: b"),
            vec![],
            vec!["plugins.dir", "plugins.signing_keys"],
        ),
        (old.replace("password: p", "password: q"), vec!["bus.redis.password", "bus.kafka.password"], vec![]),
        (
            old.replace("password: p", "password: q").replace("redis://a", "redis://b").replace("a:1", "b:1"),
            vec![],
            vec!["bus.redis.url", "bus.redis.password", "bus.kafka.brokers", "bus.kafka.password"],
        ),
    ] {
        files.write("s.yaml", &new);
        let reloaded = loaded.reload(&loaded.config).unwrap();
        assert_eq!(
            (reloaded.changes.live, reloaded.changes.needs_restart.clone()),
            (live.iter().map(|key| (*key).to_owned()).collect(), waiting.iter().map(|key| (*key).to_owned()).collect()),
            "{new}"
        );
        let trust = |config: &Config| (config.plugins.signing_keys.clone(), config.bus.redis.password.clone());
        assert_eq!(trust(&reloaded.config) == trust(&loaded.config), live.is_empty(), "{new}");
    }
}

#[test]
fn live_keys_are_the_marked_ones() {
    let live: Vec<String> = keys().into_iter().filter(|key| key.is_live).map(|key| key.path).collect();
    let expected = "listeners[].dialect listeners[].origins listeners[].devices listeners[].query_token \
        clients.publish clients.rooms clients.open_rooms \
        limits.connections_per_ip limits.connects_per_ip limits.handshake limits.first_frame limits.unbound \
        limits.unbound_max limits.keep_alive limits.message_timeout limits.frame_bytes limits.body_bytes limits.batch \
        limits.uids api.keys api.keys[].name api.keys[].key api.keys[].scopes api.insecure \
        plugins.allow_remove plugins.require_hash plugins.signing_keys \
        bus.redis.user bus.redis.password bus.kafka.password intakes[].user intakes[].password \
        log.level drain.wait drain.step_percent drain.grace";
    assert_eq!(live.join(" "), expected.split_whitespace().collect::<Vec<_>>().join(" "));
}

#[test]
fn intake_takes_a_new_user_live_only_from_redis() {
    let text = |kind: &str, address: &str, user: &str| {
        format!("intakes: [{{kind: {kind}, {address}: \"h:1\", user: {user}, password: p}}]\n")
            .replace("url: \"h", "url: \"redis://h")
    };
    for (kind, address, is_live) in [("redis", "url", true), ("redis-stream", "url", true), ("kafka", "brokers", false)]
    {
        let files = Files::new(&text(kind, address, "u"));
        let loaded = files.load(None, &[]).unwrap();
        files.write("s.yaml", &text(kind, address, "v"));
        let reloaded = loaded.reload(&loaded.config).unwrap();
        let changed = vec!["intakes[0].user".to_owned()];
        let (live, waiting) = if is_live { (changed, vec![]) } else { (vec![], changed) };
        assert_eq!((reloaded.changes.live, reloaded.changes.needs_restart), (live, waiting), "{kind}");
        assert_eq!(reloaded.config.intakes[0].user, if is_live { "v" } else { "u" }, "{kind}");
    }
}

/// Sets each live key to several values that are invalid beside the old value of a key that needs a restart.
#[test]
fn reload_to_configuration_invalid_at_start_is_refused() {
    let lists = [
        "listeners: [{address: 127.0.0.1:1, serves: [api]}]\n",
        "listeners: [{address: 0.0.0.0:1, serves: [api]}]\n",
        "listeners: [{address: 0.0.0.0:1, serves: [ws]}]\n",
        "listeners: [{address: 0.0.0.0:1, serves: [ws], origins: [\"*\"]}, {address: 127.0.0.1:2, serves: [api]}]\n",
    ];
    let rest = [
        "",
        KEY,
        "api: {insecure: true}\n",
        "limits: {unbound: 3s, unbound_max: 4s}\n",
        "drain: {wait: 40s, grace: 50s}\n",
    ];
    let whole: Vec<String> =
        lists.iter().flat_map(|list| rest.iter().map(move |rest| format!("{list}{rest}"))).collect();
    let files = Files::new("");
    let mut taken = 0;
    for old in &whole {
        files.write("s.yaml", old);
        let Ok(loaded) = files.load(None, &[]) else { continue };
        for new in &whole {
            files.write("s.yaml", new);
            let Ok(reloaded) = loaded.reload(&loaded.config) else { continue };
            let mut faults = Vec::new();
            check::check(&reloaded.config, &read::value::Value::text(""), false, &mut faults);
            assert_eq!(faults, [], "{old} → {new}");
            taken += 1;
        }
    }
    assert!(taken > 100, "{taken}");
}

#[test]
fn addresses_that_cannot_be_bound_together_are_told_in_words() {
    let both = |one: &str, other: &str| {
        format!("listeners:\n  - {{address: \"{one}\", serves: [ws]}}\n  - {{address: \"{other}\", serves: [ws]}}\n")
    };
    assert_eq!(
        faults(&both("0.0.0.0:80", "[::]:80")),
        [
            "s.yaml:3: listeners[1].address: [::]:80 and 0.0.0.0:80 (listeners[0]) cannot be bound together: [::]:80 takes every \
             IPv6 and IPv4 address of the machine on port 80; keep one of the two, or give one another port"
        ]
    );
    for (one, other) in [
        ("[::]:80", "0.0.0.0:80"),
        ("[::]:80", "127.0.0.1:80"),
        ("[::1]:80", "[::]:80"),
        ("127.0.0.1:80", "0.0.0.0:80"),
    ] {
        assert!(faults(&both(one, other))[0].contains("cannot be bound together"), "{one} {other}");
    }
    for (one, other) in [
        ("0.0.0.0:80", "[::]:81"),
        ("0.0.0.0:80", "[::1]:80"),
        ("[::]:0", "0.0.0.0:0"),
        ("127.0.0.1:80", "127.0.0.2:80"),
    ] {
        assert!(Files::new(&both(one, other)).load(None, &[]).is_ok(), "{one} {other}");
    }
}

#[test]
fn a_key_whose_scopes_changed_meaning_is_told() {
    let key = |name: &str, scopes: &str| format!("{{name: {name}, key: {name}-0123456789abcdef{scopes}}}");
    let keys = [key("all", ""), key("ops", ", scopes: [read, manage]"), key("both", ", scopes: [manage, plugins]")];
    let loaded = Files::new(&format!("api: {{keys: [{}]}}\n", keys.join(", "))).load(None, &[]).unwrap();
    let may: Vec<bool> = loaded.config.api.keys.iter().map(|key| key.may(Scope::Plugins)).collect();
    assert_eq!(may, [true, false, true]);
    let warnings = loaded.config.warnings();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].starts_with("api.keys[1].scopes: \"ops\" has `manage` without `plugins`"), "{warnings:?}");
}

#[test]
fn listener_open_to_every_origin_causes_a_warning() {
    let text = "listeners:\n  - {address: 127.0.0.1:1, serves: [ws], origins: ['*']}\n  - {address: 127.0.0.1:2, serves: [cim]}\n";
    let warnings = Files::new(text).load(None, &[]).unwrap().config.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].starts_with("listeners[0].origins: `*` lets the pages of every site connect"), "{warnings:?}");
    for origin in ["https://a.com:1.evil.example", "https://a.com/x", "http://127.1"] {
        let text = format!("listeners:\n  - {{address: 127.0.0.1:1, serves: [ws], origins: ['{origin}']}}\n");
        assert!(Files::new(&text).load(None, &[]).is_err(), "{origin}");
    }
}

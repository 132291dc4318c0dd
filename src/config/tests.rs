//! The configuration from outside: faults, precedence, secrets, limits, and the base file compared with the tree.

mod history;
mod reloads;
mod secrets;

use std::path::PathBuf;

use super::*;
use crate::protocol::Dialect;

/// A directory with a base file and, if given, the overlay of `prod`.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new(base: &str) -> Self {
        let files = Self { dir: tempfile::tempdir().unwrap() };
        files.write("s.yaml", base);
        files
    }

    fn with_prod(base: &str, prod: &str) -> Self {
        let files = Self::new(base);
        files.write("s-prod.yaml", prod);
        files
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn load(&self, env: Option<&str>, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
        Loader::isolated(Some(self.path("s.yaml")), env, variables).load()
    }

    /// The faults, without the directory.
    fn faults(&self, env: Option<&str>, variables: &[(&str, &str)]) -> Vec<String> {
        let dir = format!("{}/", self.dir.path().display());
        let error = self.load(env, variables).unwrap_err();
        error.faults.iter().map(|fault| fault.to_string().replace(&dir, "")).collect()
    }
}

fn faults(base: &str) -> Vec<String> {
    Files::new(base).faults(None, &[])
}

#[test]
fn load_without_a_file_gives_the_defaults() {
    let loaded = Files::new("").load(None, &[]).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.config.heartbeat.interval, Duration::from_secs(25));
    assert_eq!(loaded.config.limits.frame_bytes, 65_536);
    assert!(loaded.entries.iter().all(|entry| entry.source == ValueSource::Default));
}

/// `BLESS=1 cargo test --lib config` rewrites the file.
#[test]
fn the_base_file_tells_every_key_its_sentence_and_its_default() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/skylark.yaml");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, reference()).unwrap();
    }
    assert!(std::fs::read_to_string(path).unwrap() == reference(), "config/skylark.yaml is behind src/config.rs");
    assert!(reference().lines().all(|line| line.chars().count() <= 120));
}

#[test]
fn the_base_file_with_every_key_taken_in_is_the_default() {
    let is_key = |line: &str| line.trim_start().strip_prefix('#').is_some_and(|rest| !rest.starts_with(' '));
    let mut text = String::new();
    let mut is_entry = false;
    for line in reference().lines() {
        // Entries of a list begin with two blanks after the `#`, below the commented key.
        is_entry = line.starts_with("#  - ") || (line.starts_with("#    ") && is_entry);
        text += &if is_key(line) || is_entry { line.replacen('#', "", 1) } else { line.to_owned() };
        text += "\n";
    }
    let loaded = Files::new(&text.replace("the host's name, or n1", "n1")).load(None, &[]).unwrap();
    assert_eq!(loaded.config, Config::default());
    let set = loaded.entries.iter().filter(|entry| entry.source != ValueSource::Default).count();
    assert_eq!(set, loaded.entries.len(), "{text}");
    assert!(keys().iter().all(|key| key.text.ends_with('.') || key.text.ends_with(')')), "each key has a sentence");
}

#[test]
fn api_key_with_an_empty_name_is_named_by_its_position() {
    let base = "api:\n  keys:\n    - {name: shop, key: 0123456789abcdef}\n    - {name: \"\", key: fedcba9876543210}\n";
    let loaded = Files::new(base).load(None, &[]).unwrap();
    let names: Vec<&str> = loaded.config.api.keys.iter().map(|key| &*key.name).collect();
    assert_eq!(names, ["shop", "#2"]);
    let shown = loaded.entries.iter().find(|entry| entry.path == "api.keys[1].name").unwrap();
    assert_eq!(shown.value, "\"#2\"", "YAML would read a bare # as a comment");
}

#[test]
fn every_fault_is_told_at_once_with_line_key_value_and_nearest_name() {
    let base = "limts:\n  batch: 5\nlimits:\n  frame_byte: 1\n  body_bytes: lots\n  batch: 0\nheartbeat:\n  interval: 25\n\
                listeners:\n  - address: localhost\n    serves: [wss, api]\nclients:\n  publish: yes\n";
    assert_eq!(
        faults(base),
        [
            "s.yaml:1: limts: no such key; did you mean \"limits\"?",
            "s.yaml:10: listeners[0].address: expected an address and port such as 127.0.0.1:8080, got \"localhost\"",
            "s.yaml:11: listeners[0].serves[0]: expected ws, api, cim, cim-tcp or metrics, got \"wss\"; did you mean \"ws\"?",
            "s.yaml:13: clients.publish: expected true or false, got \"yes\"",
            "s.yaml:8: heartbeat.interval: expected a duration such as 25s, 500ms or 5m, got \"25\"",
            "s.yaml:4: limits.frame_byte: no such key; did you mean \"frame_bytes\"?",
            "s.yaml:5: limits.body_bytes: expected a size such as 64KiB or 1MiB, from 1KiB to 64MiB, got \"lots\"",
            "s.yaml:6: limits.batch: expected a whole number from 1 to 10000, got \"0\"",
        ]
    );
}

#[test]
fn value_of_a_wrong_kind_is_a_fault_with_its_line() {
    assert_eq!(
        faults("log: loud\napi:\n  keys: secret\n  insecure: [true]\nnode:\n  number: {a: 1}\n"),
        [
            "s.yaml:6: node.number: expected a whole number from 0 to 4095, got a map",
            "s.yaml:3: api.keys: expected a list (a map), got a string that is not shown",
            "s.yaml:4: api.insecure: expected true or false, got a list",
            "s.yaml:1: log: expected a map (level, format, file, rotation or keep), got \"loud\"",
        ]
    );
    assert_eq!(faults("drain:\n  wait: 1s\n  wait: 2s\n"), ["s.yaml:3: drain.wait: given twice, first at s.yaml:2"]);
    assert_eq!(
        faults("- a\n"),
        ["s.yaml:1: expected a map (node, listeners, clients, heartbeat, limits, queue, api, plugins, bus, history, \
         intakes, cluster, log or drain), got a list"]
    );
    assert_eq!(
        faults("listeners:\n  - serves: [ws]\n"),
        ["s.yaml:2: listeners[0].address: not given, expected an address and port such as 127.0.0.1:8080"]
    );
}

#[test]
fn invalid_yaml_reports_line_and_overlay_faults() {
    let files = Files::with_prod("node: [1\nlog: {\n", "loge: {}\n");
    let found = files.faults(Some("prod"), &[]);
    assert!(found[0].starts_with("s.yaml:") && found[0].contains("not YAML: "), "{found:?}");
    assert_eq!(found[1], "s-prod.yaml:1: loge: no such key; did you mean \"log\"?");
}

#[test]
fn overlay_wins_over_base_variables_over_overlay_options_over_all() {
    let files = Files::with_prod(
        "limits: {batch: 1, uids: 1, auth_calls: 1}\napi:\n  keys:\n    - {name: a, key: 0123456789abcdef}\n    - {name: b, key: 1123456789abcdef}\n",
        "limits:\n  uids: 2\n  auth_calls: 2\n  connections:\napi:\n  keys: []\n",
    );
    let variables = [("SKYLARK__LIMITS__AUTH_CALLS", "3"), ("SKYLARK_OTHER", "x")];
    let loaded = files.load(Some("prod"), &variables).unwrap();
    let limits = &loaded.config.limits;
    assert_eq!((limits.batch, limits.uids, limits.auth_calls, limits.connections), (1, 2, 3, 100_000));
    assert!(loaded.config.api.keys.is_empty(), "a list replaces the whole list");
    let source = |path: &str| loaded.entries.iter().find(|entry| entry.path == path).unwrap().source.to_string();
    assert!(source("limits.batch").ends_with("s.yaml:1"));
    assert!(source("limits.uids").ends_with("s-prod.yaml:2"));
    assert_eq!(source("limits.auth_calls"), "SKYLARK__LIMITS__AUTH_CALLS");
    assert_eq!(source("limits.connections"), "default");

    let loader = Loader::isolated(Some(files.path("s.yaml")), Some("prod"), &variables);
    let loaded = loader.with_option("--auth-calls", "limits.auth_calls", "4").load().unwrap();
    assert_eq!(loaded.config.limits.auth_calls, 4);
}

#[test]
fn variables_reach_lists_and_their_faults_carry_their_names() {
    let files = Files::new("");
    let loaded = files
        .load(
            None,
            &[
                ("SKYLARK__LISTENERS__0__ADDRESS", "127.0.0.1:99"),
                ("SKYLARK__LISTENERS__1", "{address: 127.0.0.1:98, serves: [cim]}"),
                ("SKYLARK__PLUGINS__ALLOW_REMOVE", "[a, b]"),
            ],
        )
        .unwrap();
    assert_eq!(loaded.config.listeners[0].address.port(), 99);
    assert_eq!(loaded.config.listeners[0].serves.len(), 3);
    assert_eq!(loaded.config.listeners[1].origins, ["same-host"]);
    assert_eq!(loaded.config.listeners[1].dialect, Dialect::Cim);
    assert_eq!(loaded.config.plugins.allow_remove, ["a", "b"]);
    assert_eq!(
        files.faults(
            None,
            &[
                ("SKYLARK__LISTENERS__5__ADDRESS", "x"),
                ("SKYLARK__LOG__LEVEL", "inof"),
                ("SKYLARK__LOG__LEVLE", "info"),
            ]
        ),
        [
            "SKYLARK__LISTENERS__5__ADDRESS: listeners.5.address: no such list entry, expected the number of an existing \
             entry or the next one",
            "SKYLARK__LOG__LEVLE: log.levle: no such key; did you mean \"level\"?",
            "SKYLARK__LOG__LEVEL: log.level: expected trace, debug, info, warn, error or off, or module=level, got \"inof\"; \
             did you mean \"info\"?",
        ]
    );
}

#[test]
fn a_missing_file_that_was_asked_for_is_a_fault_except_the_overlay_of_dev() {
    let files = Files::new("node:\n  number: 7\n");
    let missing = Loader::isolated(Some(files.path("no.yaml")), None, &[]).load().unwrap_err();
    assert!(missing.to_string().contains("no.yaml: cannot be read: No such file"), "{missing}");
    let found = files.faults(Some("prod"), &[]);
    assert!(found[0].starts_with("s-prod.yaml: cannot be read (the overlay of --env prod): No such file"), "{found:?}");
    let dev = files.load(Some("dev"), &[]).unwrap();
    assert_eq!(dev.config.node.number, 7);
    let ports: Vec<u16> = dev.config.listeners.iter().map(|listener| listener.address.port()).collect();
    assert_eq!(ports, [8080, 34_567, 23_456]);
    assert!(dev.config.clients.publish && dev.config.listeners[2].has(Service::CimTcp));
    assert_eq!(dev.files[1], "built-in skylark-dev.yaml");
}

#[test]
fn secrets_come_from_files_and_variables_and_are_never_shown() {
    let files = Files::new("");
    files.write("key", "from-a-file-canary\n");
    files.write(
        "s.yaml",
        &format!(
            "api:\n  keys:\n    - {{name: a, key: {{file: {}}}}}\n    - {{name: b, key: {{env: KEY}}}}\n    \
             - {{name: c, key: \"x${{KEY}}$${{y}}\"}}\n    - {{name: d, key: written-canary-1}}\n",
            files.path("key").display()
        ),
    );
    let loaded = files.load(None, &[("KEY", "variable-canary-1")]).unwrap();
    let keys: Vec<&str> = loaded.config.api.keys.iter().map(|key| key.key.as_str()).collect();
    assert_eq!(keys, ["from-a-file-canary", "variable-canary-1", "xvariable-canary-1${y}", "written-canary-1"]);
    assert!(!format!("{:?}{:?}", loaded.config, loaded.entries).contains("canary"));
    assert!(loaded.entries.iter().any(|entry| entry.path == "api.keys[0].key" && entry.value == "***"));

    // Neither faults nor changes show it.
    let found = files.faults(None, &[("KEY", "short-canary")]).join("\n");
    assert!(
        found.contains("api.keys[1].key: expected at least 16 bytes, got 12") && !found.contains("canary"),
        "{found}"
    );
    let found = files.faults(None, &[]).join("\n");
    assert!(found.contains("expected the variable named here to be set, it is not"), "{found}");
    let other = files.load(None, &[("KEY", "variable-canary-2")]).unwrap();
    assert_eq!(loaded.config.changes(&other.config).live, ["api.keys[1].key", "api.keys[2].key"]);
}

#[test]
fn password_in_a_file_is_live_and_is_read_again() {
    let files = Files::new("");
    files.write("p", "first-canary\n");
    let file = files.path("p").display().to_string();
    let intakes = "intakes:\n  - {kind: redis, url: redis://h, password: ";
    files.write("s.yaml", &format!("bus:\n  redis: {{password: {{file: {file}}}}}\n{intakes}old-canary}}\n"));
    let loaded = files.load(None, &[]).unwrap();
    let password = &loaded.config.bus.redis.password;
    assert_eq!((password.text(), password.read().unwrap().as_str()), ("first-canary", "first-canary"));
    files.write("p", "second-canary\n");
    assert_eq!((password.text(), password.read().unwrap().as_str()), ("first-canary", "second-canary"));

    files.write("s.yaml", &format!("bus:\n  redis: {{password: {{file: {file}}}}}\n{intakes}new-canary}}\n"));
    let new = loaded.reload(&loaded.config).unwrap().config;
    let changes = loaded.config.changes(&new);
    assert_eq!(changes.live, ["bus.redis.password", "intakes[0].password"]);
    assert_eq!(changes.needs_restart, [""; 0]);
    let live = loaded.config.with_live(&new);
    let own = live.intakes[0].redis(&live.bus).password;
    assert_eq!((live.bus.redis.password.text(), own.text()), ("second-canary", "new-canary"));
    assert!(!format!("{live:?}{changes:?}{:?}", live.bus.redis.password).contains("canary"));
}

#[test]
fn api_without_key_beyond_loopback_is_rejected_unless_insecure() {
    let open = "listeners:\n  - {address: 0.0.0.0:80, serves: [api]}\n";
    assert_eq!(
        faults(open),
        [
            "default: api.keys: expected at least one key, because the push API listens on 0.0.0.0:80 (listeners[0]), which is \
         not loopback; or set api.insecure: true to let every caller push"
        ]
    );
    assert!(Files::new(&format!("{open}api: {{insecure: true}}\n")).load(None, &[]).is_ok());
    assert!(
        Files::new(&format!("{open}api: {{keys: [{{name: a, key: 0123456789abcdef}}]}}\n")).load(None, &[]).is_ok()
    );
    assert!(Files::new("listeners:\n  - {address: \"[::1]:80\", serves: [api]}\n").load(None, &[]).is_ok());
}

#[test]
fn rules_between_keys_are_told_together() {
    let base = "listeners:\n  - {address: 127.0.0.1:1, serves: [cim-tcp, ws]}\n  - {address: 127.0.0.1:1, serves: []}\n  \
                - {address: 127.0.0.1:2, serves: [ws], origins: [same-orign, \"https://a.example\", \"https://a/b\"]}\n\
                limits:\n  unbound_max: 1s\nheartbeat:\n  interval: 0s\n";
    assert_eq!(
        faults(base),
        [
            "s.yaml:2: listeners[0].serves: expected cim-tcp alone: it is not HTTP and needs an address of its own",
            "s.yaml:3: listeners[1].address: expected a unique address, got 127.0.0.1:1 again",
            "s.yaml:3: listeners[1].serves: expected at least one service, got none",
            "s.yaml:4: listeners[2].origins[0]: expected an origin such as https://chat.example.com, or same-origin, \
             same-host, loopback or *, got \"same-orign\"; did you mean \"same-origin\"?",
            "s.yaml:4: listeners[2].origins[2]: expected an origin such as https://chat.example.com, or same-origin, \
             same-host, loopback or *, got \"https://a/b\"",
            "s.yaml:8: heartbeat.interval: expected at least 100ms, got 0s",
            "s.yaml:6: limits.unbound_max: expected at least limits.unbound (45s), got 1s",
        ]
    );
}

#[test]
fn a_listener_speaks_tls_with_both_files_or_not_at_all() {
    let tls = |value: &str| format!("listeners: [{{address: 127.0.0.1:1, serves: [ws]{value}}}]\n");
    let load = |value: &str| Files::new(&tls(value)).load(None, &[]).unwrap().config;
    let (plain, secured) = (load(", tls: ~"), load(", tls: {cert: a.pem, key: b.pem}"));
    assert!(plain.listeners[0].tls.is_none());
    let files = secured.listeners[0].tls.clone().unwrap();
    assert_eq!((files.cert, files.key), ("a.pem".into(), "b.pem".into()));
    assert_eq!(faults(&tls(", tls: {cert: a.pem}")), ["s.yaml:1: listeners[0].tls.key: not given, expected a path"]);
    assert_eq!(faults(&tls(", tls: true")), ["s.yaml:1: listeners[0].tls: expected a map (cert or key), got \"true\""]);
    // Other files, like TLS itself, need a restart.
    let other = load(", tls: {cert: a.pem, key: c.pem}, query_token: false");
    assert_eq!(secured.changes(&other).live, [""; 0]);
    assert_eq!(secured.changes(&other).needs_restart, ["listeners[0].query_token", "listeners[0].tls.key"]);
    assert!(plain.changes(&secured).needs_restart.contains(&"listeners[0].tls.cert".to_owned()));
    assert_eq!(plain.changes(&secured).live, [""; 0]);
}

#[test]
fn intake_reads_the_keys_of_its_kind() {
    let load = |text: &str| Files::new(text).load(None, &[]).unwrap();
    let loaded = load(
        "intakes:\n  - {kind: redis}\n  - {kind: redis-stream, topic: push, group: g, url: redis://h, user: u, password: canary}\n  \
         - kind: kafka\n    brokers: h:9092\n    properties: {sasl.password: canary, socket.timeout.ms: 500}\n",
    );
    let [channel, stream, kafka] = &loaded.config.intakes[..] else { panic!("three intakes") };
    assert_eq!((channel.kind, &*channel.topic, &*channel.group), (IntakeKind::Redis, "chat", "skylark"));
    assert_eq!((stream.kind, &*stream.topic, stream.password.text()), (IntakeKind::RedisStream, "push", "canary"));
    assert_eq!((kafka.kind, kafka.properties.0["socket.timeout.ms"].text()), (IntakeKind::Kafka, "500"));
    let shown = format!("{:?}{:?}", loaded.config, loaded.entries);
    assert!(!shown.contains("canary") && shown.contains("socket.timeout.ms"), "{shown}");
    assert_eq!(
        faults("intakes:\n  - {topic: a}\n  - {kind: redi}\n  - {kind: kafka, properties: [a]}\n"),
        [
            "s.yaml:2: intakes[0].kind: not given, expected redis, redis-stream or kafka",
            "s.yaml:3: intakes[1].kind: expected redis, redis-stream or kafka, got \"redi\"; did you mean \"redis\"?",
            "s.yaml:4: intakes[2].properties: expected a map of strings, got a list",
        ]
    );
    assert_eq!(
        faults(
            "intakes:\n  - {kind: redis, topic: a b, password: canary, brokers: h}\n  - {kind: kafka, user: u, brokers: h, url: redis://h}\n  \
             - {kind: redis-stream, user: u}\n  - {kind: redis-stream}\n  - {kind: kafka}\n  - {kind: redis, url: http://h}\n"
        ),
        [
            "s.yaml:2: intakes[0].topic: expected a name without blanks, got \"a b\"",
            "s.yaml:2: intakes[0].brokers: expected none, because the intake is of kind redis",
            "s.yaml:3: intakes[1].url: expected none, because the intake is of kind kafka",
            "s.yaml:4: intakes[2].user: expected only with an address: without one the intake uses the address and the user of bus",
            "default: intakes[3].topic: expected a unique topic, got \"chat\" again",
            "s.yaml:7: intakes[5].url: expected redis://host:port or rediss://host:port, got \"http://h\"",
        ]
    );
}

#[test]
fn an_intake_without_brokers_uses_those_of_the_bus() {
    let text = "bus:\n  kafka: {brokers: b:1, user: u, password: p, properties: {a: 1, b: 2}}\nintakes:\n  - {kind: kafka, properties: {b: 3}}\n  \
                - {kind: kafka, brokers: h:1, properties: {c: 4}}\n";
    let config = Files::new(text).load(None, &[]).unwrap().config;
    let [shared, own] = [0, 1].map(|index: usize| config.intakes[index].kafka(&config.bus));
    assert_eq!([&*shared.brokers, &shared.user, shared.password.text()], ["b:1", "u", "p"]);
    assert_eq!(shared.properties.0.into_values().collect::<Vec<_>>(), ["1", "3"].map(Credential::from));
    assert_eq!([&*own.brokers, &own.user, own.password.text()], ["h:1", "", ""]);
    assert_eq!(own.properties.0.into_iter().collect::<Vec<_>>(), [("c".to_owned(), "4".into())]);
}

#[test]
fn nested_or_aliased_yaml_bomb_is_refused_unexpanded() {
    let deep = format!("node: {}", "[".repeat(100_000));
    assert!(faults(&deep)[0].contains("not YAML"), "{:?}", faults(&deep));
    let blocks: String = (0..100).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert_eq!(faults(&blocks).len(), 1);
    let mut laughs = String::from("a0: &a0 [lol]\n");
    for n in 1..20 {
        let of = format!("*a{}, ", n - 1).repeat(9);
        laughs += &format!("a{n}: &a{n} [{of}lol]\n");
    }
    let found = faults(&laughs);
    assert!(found[0].contains("expected less than 8388608 bytes with all aliases expanded"), "{:?}", found[0]);
    let large = format!("node: {{id: {}}}", "x".repeat(2 << 20));
    assert!(faults(&large)[0].contains("expected at most 1048576 bytes"));
    assert_eq!(faults("a: &a [*a]\n").len(), 1);
}

#[test]
fn fault_of_a_long_key_is_shortened() {
    let long = "k".repeat(500_000);
    let found = faults(&format!("? {long}\n: 1\nlimits:\n  ? {long}\n  : 1\n"));
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|fault| fault.len() < 500), "{found:?}");
}

proptest::proptest! {
    /// Any text yields a configuration, or faults with line numbers.
    #[test]
    fn any_text_yields_a_configuration_or_faults(text in r#"([a-z_]{1,9}|listeners|limits|api|keys|[:{}\[\],&*|>?!'"-]|[ \n]|\$\{|[0-9]{1,3}|\PC){0,60}"#) {
        let loader = Loader::isolated(None, None, &[]);
        let mut found = Vec::new();
        if let Ok(value) = read::yaml::parse(&"s.yaml".into(), &text, &mut found) {
            let mut tree = loader.defaults();
            tree.overlay(value);
            let mut reader = read::Reader::new(&loader.variables, found);
            let config = <Config as read::Setting>::read(&tree, &mut reader);
            proptest::prop_assert!(config.is_some() || !reader.faults.is_empty());
        }
    }
}

#[test]
fn reload_reports_live_keys_and_keys_that_need_a_restart() {
    let files = Files::new("limits: {batch: 10}\n");
    let loaded = files.load(None, &[]).unwrap();
    files.write(
        "s.yaml",
        "limits: {batch: 20, connections: 5}\nlog: {level: debug}\nlisteners: [{address: 127.0.0.1:1, serves: [ws]}]\n",
    );
    let new = files.load(None, &[]).unwrap();
    let changes = loaded.reload(&loaded.config).unwrap().changes;
    assert_eq!(changes.live, ["limits.batch", "log.level"]);
    assert_eq!(changes.needs_restart, ["listeners[0].address", "listeners[0].serves", "limits.connections"]);
    let live = loaded.reload(&loaded.config).unwrap().config;
    assert_eq!((live.limits.batch, live.limits.connections), (20, 100_000));
    assert_eq!(loaded.config.changes(&live).needs_restart, [""; 0]);
    assert_eq!(live.changes(&new.config).live, [""; 0], "with_live takes all that is called live");
    files.write("s.yaml", "listeners: [{address: 127.0.0.1:8080, serves: [ws, api, metrics], origins: [loopback]}]\n");
    let rules = loaded.reload(&loaded.config).unwrap().changes;
    assert_eq!(
        (rules.live, rules.needs_restart.len()),
        (vec!["listeners[0].origins".into(), "limits.batch".into()], 0)
    );
    files.write("s.yaml", "limits: {batch: x}\n");
    assert!(loaded.reload(&loaded.config).is_err());
}

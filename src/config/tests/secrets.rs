//! No fault and no line of `skylark config` shows a secret, in whatever form and place it was given.

use super::*;

/// Every fault of a file in which `CANARY` stands for a secret; asserts that none shows it.
fn faults_without_secret(base: &str) -> Vec<String> {
    let files = Files::new(&base.replace("CANARY", "canary-0123456789"));
    let found = match files.load(None, &[]) {
        Err(_) => files.faults(None, &[]),
        Ok(loaded) => vec![format!("{:?}{:?}", loaded.config, loaded.entries)],
    };
    assert!(!found.join("\n").contains("canary"), "{base}: {found:?}");
    found
}

#[test]
fn api_keys_of_a_wrong_shape_are_not_shown() {
    assert_eq!(
        faults_without_secret("api:\n  keys: [CANARY, CANARY-2]\n"),
        [
            "s.yaml:2: api.keys[0]: expected a map (name, key or scopes), got a string that is not shown",
            "s.yaml:2: api.keys[1]: expected a map (name, key or scopes), got a string that is not shown",
        ]
    );
    assert_eq!(
        faults_without_secret("api:\n  keys: CANARY\n"),
        ["s.yaml:2: api.keys: expected a list (a map), got a string that is not shown"]
    );
    for base in [
        "api: CANARY\n",
        "api:\n  keys: {CANARY}\n",
        "api:\n  keys: [{CANARY}]\n",
        "api:\n  keys: [{name: a, key: [CANARY]}]\n",
        "api:\n  keys: [{name: a, key: {CANARY}}]\n",
        "api:\n  keys: [{name: a, key: {value: CANARY}}]\n",
        "api:\n  keys: [{name: a, key: {env: CANARY}}]\n",
        "api:\n  keys: [{name: a, key: {file: CANARY}}]\n",
        "api:\n  keys: [{name: a, key: \"x${CANARY\"}]\n",
        "api:\n  keys: [{name: a, key: \"x${CANARY}y\"}]\n",
        "api:\n  keys: [{name: a, kee: CANARY}]\n",
        "- CANARY\n",
        "CANARY\n",
    ] {
        faults_without_secret(base);
    }
}

#[test]
fn passwords_and_properties_of_engines_are_not_shown() {
    for base in [
        "bus:\n  redis: CANARY\n",
        "bus:\n  redis: {password: \"CANARY${x\"}\n",
        "bus:\n  redis: {password: [CANARY]}\n",
        "bus:\n  redis: {passwort: CANARY}\n",
        "bus:\n  redis: {url: \"redis://user:CANARY@host\"}\n",
        "bus:\n  redis: {url: \"CANARY@host\"}\n",
        "bus:\n  redis: {url: \"redis://host?password=CANARY\"}\n",
        "intakes:\n  - {kind: redis, url: \"http://host#CANARY\"}\n",
        "bus:\n  kafka: {properties: {sasl.password: \"CANARY${x\"}}\n",
        "bus:\n  kafka: {properties: {sasl.password: \"x${CANARY}\"}}\n",
        "bus:\n  kafka: {properties: {sasl.password: [CANARY]}}\n",
        "bus:\n  kafka: {properties: {SASL.Password: CANARY}}\n",
        "bus:\n  kafka: {properties: {sasl: {password: CANARY}}}\n",
        "bus:\n  kafka: {properties: \"sasl.password=CANARY\"}\n",
        "bus:\n  kafka: {brokers: \"user:CANARY@host:9092\"}\n",
        "intakes:\n  - {kind: kafka, brokers: \"user:CANARY@host:9092\"}\n",
        "intakes:\n  - {kind: kafka, brokers: h, properties: {ssl.key.pem: \"CANARY${\"}}\n",
        "intakes: [CANARY]\n",
        "intakes: CANARY\n",
        "bus: CANARY\n",
    ] {
        faults_without_secret(base);
    }
}

#[test]
fn a_private_key_in_the_place_of_a_public_one_or_of_a_path_is_not_shown() {
    assert_eq!(
        faults_without_secret("plugins:\n  signing_keys: [CANARY]\n"),
        [
            "s.yaml:2: plugins.signing_keys[0]: expected an Ed25519 public key, 32 bytes as base64, got a string of 17 characters"
        ]
    );
    let pem = "listeners:\n  - address: 127.0.0.1:1\n    serves: [ws]\n    tls:\n      cert: a.pem\n      key: |\n        -----BEGIN \
               PRIVATE KEY-----\n        CANARY\n";
    assert_eq!(
        faults_without_secret(pem),
        ["s.yaml:7: listeners[0].tls.key: expected a path, got a string of 2 lines"]
    );
}

#[test]
fn variables_with_secrets_of_a_wrong_shape_are_not_shown() {
    for (name, value) in [
        ("SKYLARK__API__KEYS", "canary-0123456789"),
        ("SKYLARK__API__KEYS", "[canary-0123456789"),
        ("SKYLARK__API__KEYS__0", "canary-0123456789"),
        ("SKYLARK__BUS__REDIS__PASSWORD", "{canary: 1}"),
        ("SKYLARK__BUS__KAFKA__PROPERTIES", "sasl.password=canary"),
    ] {
        let found = Files::new("").faults(None, &[(name, value)]).join("\n");
        assert!(found.contains(name) && !found.contains("canary"), "{found}");
    }
}

#[test]
fn secret_from_file_or_variable_loses_one_line_break_and_a_byte_order_mark() {
    let files = Files::new("");
    files.write(
        "s.yaml",
        &format!(
            "api:\n  keys:\n    - {{name: f, key: {{file: {}}}}}\n    - {{name: e, key: {{env: KEY}}}}\n    \
             - {{name: i, key: \"${{KEY}}-i\"}}\n",
            files.path("key").display()
        ),
    );
    for text in ["0123456789abcdef", "0123456789abcdef\n", "0123456789abcdef\r\n", "\u{feff}0123456789abcdef\n"] {
        files.write("key", text);
        let variable = text.replacen("0123", "4123", 1);
        let loaded = files.load(None, &[("KEY", &variable)]).unwrap();
        let keys: Vec<&str> = loaded.config.api.keys.iter().map(|key| key.key.as_str()).collect();
        assert_eq!(keys, ["0123456789abcdef", "4123456789abcdef", "4123456789abcdef-i"], "{text:?}");
    }
    files.write("key", "0123456789abcdef\n\n");
    let found = files.faults(None, &[("KEY", "4123456789abcdef ")]);
    assert_eq!(
        found,
        [
            "s.yaml:3: api.keys[0].key: expected a key without blanks and line breaks, got one after byte 16",
            "s.yaml:4: api.keys[1].key: expected a key without blanks and line breaks, got one after byte 16",
            "s.yaml:5: api.keys[2].key: expected a key without blanks and line breaks, got one after byte 16",
        ]
    );
}

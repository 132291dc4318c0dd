//! Authentication with an issuer and signatures made by the test: when keys are fetched, and which tokens are accepted.
//! `tests/it/samples/jwks.rs` of the node uses real keys and a real server.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jwks_auth::{JwksAuth, Settings};
use serde_json::{Value, json};
use skylark_plugin::crypto::{EcKey, PublicKey, RsaKey};
use skylark_plugin::http::Response;
use skylark_plugin::{Admission, Auth, AuthAnswer, Claim, Plugin, Transport, clock, testing};

const URL: &str = "https://issuer.example/jwks.json";

fn plugin(more: &str) -> JwksAuth {
    let text = format!("url = \"{URL}\"\nissuer = \"https://issuer.example\"\naudience = \"skylark\"\n{more}");
    JwksAuth::start(toml::from_str(&text).expect("settings")).expect("a plugin")
}

/// Numbers that stand for keys: RSA or P-256 key `1`, key `2`, …
fn rsa(number: u8) -> RsaKey {
    RsaKey { n: vec![number; 256], e: vec![1, 0, 1] }
}

fn curve(number: u8) -> EcKey {
    EcKey { x: vec![number; 32], y: vec![number; 32] }
}

fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn rsa_jwk(name: &str, number: u8) -> Value {
    // Some issuers write a leading zero.
    let n = [vec![0], rsa(number).n].concat();
    json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": name, "n": text(&n), "e": text(&rsa(number).e)})
}

fn curve_jwk(name: &str, number: u8) -> Value {
    json!({"kty": "EC", "crv": "P-256", "kid": name, "x": text(&curve(number).x), "y": text(&curve(number).y)})
}

fn publish(keys: &[Value]) {
    answer(200, json!({"keys": keys}).to_string().as_bytes());
}

fn answer(status: u16, body: &[u8]) {
    let response = Response { status, headers: vec![], body: body.to_vec() };
    testing::with(|host| host.answers.insert(format!("GET {URL}"), response));
}

fn asked() -> u64 {
    testing::with(|host| host.counters.values().flatten().map(|(_, amount)| u64::from(*amount)).sum())
}

fn now() -> u64 {
    clock::now() / 1_000
}

fn claims() -> Value {
    json!({"sub": "1074", "iss": "https://issuer.example", "aud": ["other", "skylark"], "exp": now() + 60})
}

/// A token whose signature the test host accepts for this key.
fn signed(header: &Value, claims: &Value, by: PublicKey) -> String {
    let over = format!("{}.{}", text(header.to_string().as_bytes()), text(claims.to_string().as_bytes()));
    let signature = format!("by {by:?}").into_bytes();
    testing::with(|host| host.signatures.push((by, over.clone().into_bytes(), signature.clone())));
    format!("{over}.{}", text(&signature))
}

fn by_rsa(name: &str, number: u8) -> String {
    signed(&json!({"alg": "RS256", "kid": name}), &claims(), PublicKey::Rs256(rsa(number)))
}

fn by_curve(name: &str, number: u8) -> String {
    signed(&json!({"alg": "ES256", "kid": name}), &claims(), PublicKey::Es256(curve(number)))
}

fn ask(plugin: &mut JwksAuth, token: impl Into<String>) -> AuthAnswer {
    let transport = Transport {
        listener: "ws".into(),
        remote: "127.0.0.1".into(),
        path: "/ws".into(),
        origin: None,
        user_agent: None,
        bound: None,
    };
    plugin.admit(&transport, &Claim { token: Some(token.into()), uid: None, device: None, channel: None, data: vec![] })
}

#[track_caller]
fn admitted(answer: AuthAnswer) -> Admission {
    match answer {
        AuthAnswer::Admit(admission) => admission,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused(answer: AuthAnswer) -> (String, String) {
    match answer {
        AuthAnswer::Refuse(refusal) => (refusal.code, refusal.reason),
        other => panic!("{other:?}"),
    }
}

const NO_KEYS: &str = "token: the keys of its issuer cannot be had now";

#[test]
fn rsa_and_ec_keys_admit_after_one_request() {
    publish(&[rsa_jwk("r", 1), curve_jwk("c", 1)]);
    let mut plugin = plugin("keep_claims = [\"iss\"]");
    assert_eq!(asked(), 0, "nothing is asked before somebody comes");
    let admission = admitted(ask(&mut plugin, by_rsa("r", 1)));
    assert_eq!((admission.uid.as_str(), admission.expires), ("1074", Some(now() + 65)));
    assert_eq!(admission.claims, [("iss".to_owned(), "https://issuer.example".to_owned())]);
    admitted(ask(&mut plugin, by_curve("c", 1)));
    // A token without a key name is checked with each key of the algorithm.
    admitted(ask(&mut plugin, signed(&json!({"alg": "ES256"}), &claims(), PublicKey::Es256(curve(1)))));
    assert_eq!(asked(), 1);
}

#[test]
fn token_with_another_algorithm_than_its_key_is_refused() {
    publish(&[rsa_jwk("r", 1), curve_jwk("c", 1)]);
    let mut plugin = plugin("");
    let token = |alg: &str, kid: &str, by| signed(&json!({"alg": alg, "kid": kid}), &claims(), by);
    for (token, reason) in [
        (token("HS256", "r", PublicKey::Rs256(rsa(1))), "token: expected alg RS256 or ES256, got \"HS256\""),
        (token("none", "r", PublicKey::Rs256(rsa(1))), "token: expected alg RS256 or ES256, got \"none\""),
        (token("rs256", "r", PublicKey::Rs256(rsa(1))), "token: expected alg RS256 or ES256, got \"rs256\""),
        (token("PS256", "r", PublicKey::Rs256(rsa(1))), "token: expected alg RS256 or ES256, got \"PS256\""),
        (token("ES256", "r", PublicKey::Rs256(rsa(1))), "token: expected alg RS256, got \"ES256\""),
        (token("RS256", "c", PublicKey::Es256(curve(1))), "token: expected alg ES256, got \"RS256\""),
        (token("RS256", "r", PublicKey::Rs256(rsa(2))), "token: the signature does not match"),
    ] {
        assert_eq!(refused(ask(&mut plugin, token)), ("401".to_owned(), reason.to_owned()));
    }
    let mut one = self::plugin("algorithms = [\"ES256\"]");
    let (_, reason) = refused(ask(&mut one, by_rsa("r", 1)));
    assert_eq!(reason, "token: expected alg ES256, got \"RS256\"");
}

#[test]
fn an_unknown_key_is_asked_for_once_an_interval() {
    publish(&[rsa_jwk("old", 1)]);
    let mut plugin = plugin("interval = 30");
    admitted(ask(&mut plugin, by_rsa("old", 1)));
    publish(&[rsa_jwk("old", 1), rsa_jwk("new", 2)]);
    // The interval is not over: invented key names cause no fetch.
    for name in ["new", "x", "y", "z"] {
        let (code, reason) = refused(ask(&mut plugin, by_rsa(name, 2)));
        assert_eq!((code.as_str(), reason), ("401", format!("token: no key is named {name:?}")));
    }
    assert_eq!(asked(), 1);
    testing::advance(30_000);
    admitted(ask(&mut plugin, by_rsa("new", 2)));
    admitted(ask(&mut plugin, by_rsa("old", 1)));
    // A key that the issuer removed is not accepted after the next fetch.
    publish(&[rsa_jwk("new", 2)]);
    testing::advance(600_000);
    assert_eq!(refused(ask(&mut plugin, by_rsa("old", 1))).1, "token: no key is named \"old\"");
}

#[test]
fn keys_are_shared_by_all_instances() {
    publish(&[rsa_jwk("r", 1), json!({"kty": "oct", "k": "c2VjcmV0"})]);
    for mut instance in (0..5).map(|_| plugin("")) {
        admitted(ask(&mut instance, by_rsa("r", 1)));
    }
    assert_eq!(asked(), 1);
    let kept = testing::with(|host| host.kv["keys"].0.clone());
    assert!(!String::from_utf8(kept).expect("text").contains("c2VjcmV0"), "only what is of use is kept");
    // Another version reads the stored keys. Invalid stored data is ignored.
    testing::with(|host| host.kv.get_mut("keys").expect("keys").0 = b"nonsense".to_vec());
    admitted(ask(&mut plugin(""), by_rsa("r", 1)));
    assert_eq!(asked(), 2);
}

#[test]
fn requests_without_keys_are_limited() {
    let mut instances: Vec<JwksAuth> = (0..5).map(|_| plugin("requests = 2")).collect();
    for instance in &mut instances {
        assert_eq!(refused(ask(instance, by_rsa("r", 1))), ("503".to_owned(), NO_KEYS.to_owned()));
    }
    assert_eq!(asked(), 2);
    publish(&[rsa_jwk("r", 1)]);
    testing::advance(10_000);
    admitted(ask(&mut instances[4], by_rsa("r", 1)));
}

#[test]
fn keys_stay_valid_during_an_issuer_outage_until_stale() {
    let mut plugin = plugin("ttl = 60\nstale = 100\ninterval = 10");
    assert_eq!(refused(ask(&mut plugin, by_rsa("r", 1))), ("503".to_owned(), NO_KEYS.to_owned()));
    for (status, body) in [
        (500, json!({"keys": [rsa_jwk("r", 1)]}).to_string()),
        (302, String::new()),
        (200, "<html>".to_owned()),
        (200, json!({"keys": {}}).to_string()),
        (200, json!({"keys": []}).to_string()),
    ] {
        testing::advance(10_000);
        answer(status, body.as_bytes());
        assert_eq!(refused(ask(&mut plugin, by_rsa("r", 1))).0, "503", "{status} {body}");
    }
    testing::advance(10_000);
    publish(&[rsa_jwk("r", 1)]);
    admitted(ask(&mut plugin, by_rsa("r", 1)));
    answer(500, b"");
    testing::advance(159_000);
    admitted(ask(&mut plugin, by_rsa("r", 1)));
    testing::advance(1_000);
    assert_eq!(refused(ask(&mut plugin, by_rsa("r", 1))).0, "503", "a key that nobody confirmed for so long is none");
    let lines = testing::with(|host| host.lines.iter().map(|(_, line)| line.clone()).collect::<Vec<_>>());
    assert!(lines.iter().any(|line| line == &format!("no keys of {URL}: expected status 200, got 500")), "{lines:?}");
}

#[test]
fn unsuitable_keys_are_skipped() {
    let with = |mut jwk: Value, name: &str, value: Value| {
        jwk[name] = value;
        jwk
    };
    publish(&[
        json!("nonsense"),
        json!({"kty": "oct", "kid": "secret", "k": "c2VjcmV0"}),
        with(rsa_jwk("enc", 1), "use", json!("enc")),
        with(rsa_jwk("pss", 1), "alg", json!("PS256")),
        with(rsa_jwk("ops", 1), "key_ops", json!(["encrypt"])),
        with(rsa_jwk("small", 1), "n", json!(text(&[1; 128]))),
        with(curve_jwk("curve", 1), "crv", json!("P-384")),
        with(curve_jwk("short", 1), "x", json!(text(&[1; 31]))),
        with(rsa_jwk("good", 1), "key_ops", json!(["verify"])),
    ]);
    let mut plugin = plugin("");
    admitted(ask(&mut plugin, by_rsa("good", 1)));
    for name in ["secret", "enc", "pss", "ops", "small"] {
        assert_eq!(refused(ask(&mut plugin, by_rsa(name, 1))).1, format!("token: no key is named {name:?}"));
    }
    for name in ["curve", "short"] {
        assert_eq!(refused(ask(&mut plugin, by_curve(name, 1))).1, format!("token: no key is named {name:?}"));
    }
}

#[test]
fn token_with_an_invalid_claim_is_refused_by_name() {
    publish(&[rsa_jwk("r", 1)]);
    let mut plugin = plugin("");
    let header = json!({"alg": "RS256", "kid": "r"});
    for (name, value, reason) in [
        ("exp", json!(now() - 5), "token: expired"),
        ("exp", Value::Null, "token: exp: expected seconds since 1970, got none"),
        ("nbf", json!(now() + 6), "token: not valid yet"),
        ("aud", json!("other"), "token: aud: expected this service"),
        ("aud", Value::Null, "token: aud: expected this service"),
        ("iss", json!("https://issuer.example.evil"), "token: iss: expected a trusted issuer"),
        ("sub", Value::Null, "token: sub: expected a non-empty text or an integer"),
    ] {
        let mut claims = claims();
        claims[name] = value;
        let token = signed(&header, &claims, PublicKey::Rs256(rsa(1)));
        assert_eq!(refused(ask(&mut plugin, token)), ("401".to_owned(), reason.to_owned()));
    }
    let crit = signed(&json!({"alg": "RS256", "kid": "r", "crit": ["b64"]}), &claims(), PublicKey::Rs256(rsa(1)));
    assert_eq!(refused(ask(&mut plugin, crit)).1, "token: the header asks for extensions (crit)");
}

#[test]
fn settings_are_checked_when_it_starts() {
    let start = |text: &str| match toml::from_str::<Settings>(text) {
        Ok(settings) => JwksAuth::start(settings).map(|_| ()).expect_err("a fault"),
        Err(error) => error.message().to_owned(),
    };
    let whole = "url = \"https://a.example\"\nissuer = \"\"\naudience = \"\"\n";
    assert_eq!(
        start("url = \"ftp://a\"\nissuer = \"\"\naudience = \"\""),
        "settings.url: expected https:// or http://, got \"ftp://a\""
    );
    assert_eq!(start("url = \"https://a.example\"\nissuer = \"\""), "missing field `audience`");
    assert_eq!(
        start(&format!("{whole}algorithms = []")),
        "settings.algorithms: expected RS256, ES256 or both, got none"
    );
    assert!(start(&format!("{whole}algorithms = [\"HS256\"]")).starts_with("unknown variant `HS256`"));
    assert_eq!(start(&format!("{whole}interval = 0")), "settings.interval: expected 1 to 86400, got 0");
    assert!(start(&format!("{whole}tll = 1")).starts_with("unknown field `tll`"));
}

#[test]
fn the_manifest_that_is_shipped_starts() {
    let manifest: toml::Table = toml::from_str(include_str!("../jwks-auth.toml")).expect("a manifest");
    JwksAuth::start(manifest["settings"].clone().try_into().expect("settings")).expect("a plugin");
}

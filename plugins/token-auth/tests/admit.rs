//! Authentication with tokens made by the test. The built component must pass the same cases.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use skylark_plugin::{
    Access, AccessAnswer, Admission, Auth, AuthAnswer, Claim, Entry, Identity, Join, Plugin, Transport, clock,
};
use token_auth::{Settings, TokenAuth};

const SECRET: &str = "a secret of at least thirty-two bytes";
const OLD: &str = "the secret that was used before it, long";

fn plugin(more: &str) -> TokenAuth {
    let keys = format!("[[keys]]\nid = \"new\"\nsecret = \"{SECRET}\"\n[[keys]]\nid = \"old\"\nsecret = \"{OLD}\"\n");
    TokenAuth::start(toml::from_str(&format!("{more}\n{keys}")).expect("settings")).expect("a plugin")
}

fn sign(header: &Value, claims: &Value, secret: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any size");
    mac.update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

fn token(claims: &Value) -> String {
    sign(&json!({"alg": "HS256", "typ": "JWT"}), claims, SECRET)
}

fn now() -> u64 {
    clock::now() / 1_000
}

fn ask(plugin: &mut TokenAuth, token: Option<String>, uid: Option<String>, bound: Option<&str>) -> AuthAnswer {
    let transport = Transport {
        listener: "ws".into(),
        remote: "127.0.0.1".into(),
        path: "/ws".into(),
        origin: None,
        user_agent: None,
        bound: bound.map(str::to_owned),
    };
    plugin.admit(&transport, &Claim { token, uid, device: None, channel: None, data: Vec::new() })
}

fn answer(claims: &Value) -> AuthAnswer {
    ask(&mut plugin(""), Some(token(claims)), None, None)
}

#[track_caller]
fn admitted(answer: AuthAnswer) -> Admission {
    match answer {
        AuthAnswer::Admit(admission) => admission,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn refused(answer: &AuthAnswer) -> (&str, &str) {
    match answer {
        AuthAnswer::Refuse(refusal) => (refusal.code.as_str(), refusal.reason.as_str()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_token_gives_uid_device_rooms_and_end() {
    let exp = now() + 60;
    let claims = json!({"uid": "1074", "sub": "1074", "exp": exp, "device": "pixel", "rooms": ["lobby", "vip"], "name": "小毛豆"});
    let mut plugin = plugin("keep_claims = [\"name\", \"exp\", \"absent\"]");
    let admission = admitted(ask(&mut plugin, Some(token(&claims)), Some("someone else".into()), None));
    assert_eq!(admission.uid, "1074");
    assert_eq!(admission.device.as_deref(), Some("pixel"));
    assert_eq!(admission.rooms, ["lobby", "vip"]);
    assert_eq!(admission.expires, Some(exp + 5));
    assert_eq!(admission.claims, [("name".to_owned(), "小毛豆".to_owned()), ("exp".to_owned(), exp.to_string())]);
}

#[test]
fn numbers_name_users_and_rooms_may_be_one_text() {
    let admission = admitted(answer(&json!({"sub": 1074, "exp": now() + 60, "did": 7, "rooms": "a, b,"})));
    assert_eq!((admission.uid.as_str(), admission.device.as_deref()), ("1074", Some("7")));
    assert_eq!(admission.rooms, ["a", "b"]);
}

fn join(claims: Vec<Entry>, data: Vec<Entry>, room: &str) -> AccessAnswer {
    let who = Identity { uid: "1074".into(), cid: 1, device: None, channel: None };
    plugin("").join(&Join { who, claims, room: room.to_owned(), data })
}

#[test]
fn the_claim_join_names_the_rooms_that_may_be_joined() {
    let admission = admitted(answer(&json!({"sub": "1", "exp": now() + 60, "join": ["news:*", "board"]})));
    assert!(admission.rooms.is_empty(), "they are not joined at once");
    let claims = admission.claims;
    assert_eq!(claims, [("join".to_owned(), "news:*,board".to_owned())]);
    for room in ["news:", "news:1", "board"] {
        assert_eq!(join(claims.clone(), Vec::new(), room), AccessAnswer::allow(), "{room}");
    }
    for room in ["news", "board2", "lobby"] {
        assert_eq!(join(claims.clone(), Vec::new(), room), AccessAnswer::Abstain, "{room}");
    }
    assert_eq!(join(Vec::new(), claims, "board"), AccessAnswer::Abstain, "what the client sent is no claim");
    assert_eq!(admitted(answer(&json!({"sub": "1", "exp": now() + 60}))).claims, []);
    let one_text = admitted(answer(&json!({"sub": "1", "exp": now() + 60, "join": "a, b*"})));
    assert_eq!(one_text.claims, [("join".to_owned(), "a,b*".to_owned())]);
}

#[test]
fn keys_rotate_with_and_without_their_name() {
    let claims = json!({"sub": "1", "exp": now() + 60});
    for header in [json!({"alg": "HS256"}), json!({"alg": "HS256", "kid": "old"})] {
        admitted(ask(&mut plugin(""), Some(sign(&header, &claims, OLD)), None, None));
    }
    let wrong = sign(&json!({"alg": "HS256", "kid": "new"}), &claims, OLD);
    assert_eq!(refused(&ask(&mut plugin(""), Some(wrong), None, None)), ("401", "token: the signature does not match"));
    let unknown = sign(&json!({"alg": "HS256", "kid": "lost"}), &claims, OLD);
    assert_eq!(refused(&ask(&mut plugin(""), Some(unknown), None, None)), ("401", "token: no key is named \"lost\""));
}

#[test]
fn time_has_a_leeway_and_no_more() {
    let at = |exp: u64, nbf: u64| answer(&json!({"sub": "1", "exp": exp, "nbf": nbf}));
    admitted(at(now() - 4, now() + 5));
    assert_eq!(refused(&at(now() - 5, 0)), ("401", "token: expired"));
    assert_eq!(refused(&at(now() + 60, now() + 6)), ("401", "token: not valid yet"));
    admitted(answer(&json!({"sub": "1", "exp": now() as f64 + 0.5})));
}

#[test]
fn an_expiry_is_required_unless_the_settings_say_otherwise() {
    let claims = json!({"sub": "1"});
    assert_eq!(refused(&answer(&claims)), ("401", "token: exp: expected seconds since 1970, got none"));
    let admission = admitted(ask(&mut plugin("require_expiry = false"), Some(token(&claims)), None, None));
    assert_eq!(admission.expires, None);
}

#[test]
fn claims_of_the_wrong_kind_are_refused_by_name() {
    let exp = now() + 60;
    for (claims, reason) in [
        (json!({"exp": exp}), "token: sub: expected a non-empty text or an integer"),
        (json!({"exp": exp, "sub": ""}), "token: sub: expected a non-empty text or an integer"),
        (json!({"exp": exp, "sub": 1.5}), "token: sub: expected a non-empty text or an integer"),
        (json!({"exp": exp, "sub": "1", "uid": "2"}), "token: uid: expected the same as sub"),
        (json!({"exp": exp, "sub": "1", "rooms": [1]}), "token: rooms: expected a list of non-empty texts"),
        (json!({"exp": exp, "sub": "1", "join": ["a,b"]}), "token: join: expected a list of rooms without commas"),
        (json!({"exp": exp, "sub": "1", "join": 1}), "token: join: expected a list of non-empty texts"),
        (json!({"exp": exp, "sub": "1", "device": {}}), "token: device: expected a non-empty text or an integer"),
        (json!({"exp": "soon", "sub": "1"}), "token: exp: expected seconds since 1970"),
        (json!({"exp": -1, "sub": "1"}), "token: exp: expected seconds since 1970"),
    ] {
        assert_eq!(refused(&answer(&claims)), ("401", reason), "{claims}");
    }
}

#[test]
fn forged_and_broken_tokens_are_refused() {
    let claims = json!({"sub": "1", "exp": now() + 60});
    let good = token(&claims);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let other = token(&json!({"sub": "2", "exp": now() + 60}));
    let swapped = format!("{}.{signature}", other.rsplit_once('.').unwrap().0);
    let none = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), signed.split_once('.').unwrap().1);
    let crit = sign(&json!({"alg": "HS256", "crit": ["b64"]}), &claims, SECRET);
    let rs256 = sign(&json!({"alg": "RS256"}), &claims, SECRET);
    for (token, reason) in [
        (swapped, "token: the signature does not match"),
        (format!("{signed}."), "token: the signature does not match"),
        (signed.to_owned() + "." + &signature[..20], "token: the signature does not match"),
        (none, "token: expected alg HS256, got \"none\""),
        (rs256, "token: expected alg HS256, got \"RS256\""),
        (crit, "token: the header asks for extensions (crit)"),
        ("secret".to_owned(), "token: expected three parts"),
        ("a.b".to_owned(), "token: expected three parts"),
        ("a.b.c".to_owned(), "token: the header is not base64url of a JSON object"),
        (format!("{good}.x"), "token: expected three parts"),
        (format!("{signed}.*"), "token: the signature is not base64url"),
        ("x".repeat(9_000), "token: too long"),
    ] {
        assert_eq!(refused(&ask(&mut plugin(""), Some(token.clone()), None, None)), ("401", reason), "{token}");
    }
}

#[test]
fn audience_and_issuer_count_where_they_are_set() {
    let claims = |aud: Value, iss: &str| json!({"sub": "1", "exp": now() + 60, "aud": aud, "iss": iss});
    let mut plugin = plugin("audience = \"skylark\"\nissuer = \"shop\"");
    let mut ask = |claims: &Value| ask(&mut plugin, Some(token(claims)), None, None);
    admitted(ask(&claims(json!("skylark"), "shop")));
    admitted(ask(&claims(json!(["other", "skylark"]), "shop")));
    assert_eq!(refused(&ask(&claims(json!("other"), "shop"))), ("401", "token: aud: expected this service"));
    assert_eq!(refused(&ask(&claims(json!("skylark"), "mall"))), ("401", "token: iss: expected a trusted issuer"));
}

#[test]
fn without_a_token_the_next_plugin_is_asked() {
    assert_eq!(ask(&mut plugin(""), None, Some("1074".into()), None), AuthAnswer::Abstain);
    assert_eq!(ask(&mut plugin(""), Some(String::new()), None, None), AuthAnswer::Abstain);
}

#[test]
fn token_in_the_uid_field_is_accepted() {
    let good = token(&json!({"sub": "1074", "exp": now() + 60}));
    assert_eq!(admitted(ask(&mut plugin(""), None, Some(good), None)).uid, "1074");
    let bad = sign(&json!({"alg": "HS256"}), &json!({"sub": "1074", "exp": now() + 60}), "wrong");
    assert_eq!(refused(&ask(&mut plugin(""), None, Some(bad), None)).0, "401");
}

#[test]
fn a_bound_connection_keeps_its_user() {
    let good = || Some(token(&json!({"sub": "1074", "exp": now() + 60})));
    admitted(ask(&mut plugin(""), good(), None, Some("1074")));
    let answer = ask(&mut plugin(""), good(), None, Some("1078"));
    assert_eq!(refused(&answer), ("403", "token: belongs to another user than the connection"));
}

#[test]
fn settings_are_checked_when_it_starts() {
    let start = |text: &str| TokenAuth::start(toml::from_str(text).unwrap()).map(|_| ()).unwrap_err();
    assert_eq!(start("keys = []"), "settings.keys: expected at least one key, got none");
    assert_eq!(
        start("[[keys]]\nid = \"a\"\nsecret = \"short\""),
        "settings.keys[0].secret: expected at least 32 bytes, got 5"
    );
    let twice = format!("[[keys]]\nid = \"a\"\nsecret = \"{SECRET}\"\n").repeat(2);
    assert_eq!(start(&twice), "settings.keys[1].id: expected a name of its own, got \"a\"");
    assert!(toml::from_str::<Settings>("keys = []\nleway = 1").unwrap_err().to_string().contains("leway"));
}

#[test]
fn the_manifest_that_is_shipped_starts() {
    let manifest: toml::Table = toml::from_str(include_str!("../../dist/token-auth.toml")).unwrap();
    TokenAuth::start(manifest["settings"].clone().try_into().unwrap()).unwrap();
}

//! The sample `jwks-auth` with an issuer: a web server of the test that publishes real keys, rotates them, and fails.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::token::now;
use crate::support::wire::Form;

/// One key pair of the issuer with its name.
enum Pair {
    Rsa(&'static str, RsaKeyPair),
    Curve(&'static str, EcdsaKeyPair),
}

impl Pair {
    fn rsa(name: &'static str) -> Self {
        Self::Rsa(name, RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    fn curve(name: &'static str) -> Self {
        Self::Curve(name, EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    /// The key as the issuer publishes it.
    fn jwk(&self) -> Value {
        match self {
            Self::Rsa(name, pair) => {
                // A sequence of two numbers: 257 bytes of modulus after eight bytes of header, and three bytes of
                // exponent at the end.
                let der = pair.public_key().as_ref();
                let (n, e) = (text(&der[9..265]), text(&der[der.len() - 3..]));
                json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": name, "n": n, "e": e})
            }
            Self::Curve(name, pair) => {
                let point = pair.public_key().as_ref();
                let (x, y) = (text(&point[1..33]), text(&point[33..]));
                json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": name, "x": x, "y": y})
            }
        }
    }

    fn header(&self) -> Value {
        match self {
            Self::Rsa(name, _) => json!({"alg": "RS256", "typ": "JWT", "kid": name}),
            Self::Curve(name, _) => json!({"alg": "ES256", "typ": "JWT", "kid": name}),
        }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = over(header, claims);
        let rng = SystemRandom::new();
        let signature = match self {
            Self::Rsa(_, pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &rng, signed.as_bytes(), &mut signature).unwrap();
                signature
            }
            Self::Curve(_, pair) => pair.sign(&rng, signed.as_bytes()).unwrap().as_ref().to_vec(),
        };
        format!("{signed}.{}", text(&signature))
    }

    fn token(&self) -> String {
        self.sign(&self.header(), &claims())
    }
}

fn text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn over(header: &Value, claims: &Value) -> String {
    format!("{}.{}", text(header.to_string().as_bytes()), text(claims.to_string().as_bytes()))
}

fn claims() -> Value {
    json!({"sub": "1074", "iss": "https://issuer.example", "aud": "skylark", "exp": now() + 3_600, "nbf": now() - 1})
}

/// A web server with one page; counts its requests.
struct Issuer {
    address: SocketAddr,
    page: Arc<Mutex<(u16, String)>>,
    asked: Arc<AtomicUsize>,
}

impl Issuer {
    async fn start(keys: &[&Pair]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (page, asked) = (Arc::new(Mutex::default()), Arc::new(AtomicUsize::new(0)));
        let issuer = Self { address, page: Arc::clone(&page), asked: Arc::clone(&asked) };
        issuer.publish(keys);
        tokio::spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                let (page, asked) = (Arc::clone(&page), Arc::clone(&asked));
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while tcp.read_buf(&mut head).await.is_ok_and(|read| read > 0) {
                        if !head.ends_with(b"\r\n\r\n") {
                            continue;
                        }
                        assert!(head.starts_with(b"GET /jwks.json HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&head));
                        head.clear();
                        asked.fetch_add(1, Ordering::SeqCst);
                        let (status, body) = page.lock().clone();
                        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                        tcp.write_all(answer.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        issuer
    }

    fn publish(&self, keys: &[&Pair]) {
        let keys: Vec<Value> = keys.iter().map(|pair| pair.jwk()).collect();
        *self.page.lock() = (200, json!({"keys": keys}).to_string());
    }

    fn breaks(&self) {
        *self.page.lock() = (500, "out of order".to_owned());
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// A node with one auth plugin, which trusts this issuer.
    fn gateway(&self, settings: &str) -> Gateway {
        Setup::default().no_plugins().plugin("jwks-auth").manifest("jwks-auth", &self.manifest(settings)).start()
    }

    fn manifest(&self, settings: &str) -> String {
        let place = format!("http://{}", self.address);
        format!(
            "grants = [\"http\", \"kv\", \"counters\"]\n[http]\nallow = [\"{place}\"]\nprivate = [\"127.0.0.1\"]\n\
             [settings]\nurl = \"{place}/jwks.json\"\nissuer = \"https://issuer.example\"\naudience = \"skylark\"\n{settings}\n"
        )
    }
}

/// The bind result of a new connection.
async fn bind(gateway: &Gateway, token: &str) -> (String, String) {
    let mut client: Client = gateway.dial_cim(Form::CimJson).await;
    client.sent("client_bind", json!({"token": token, "uid": "somebody else"})).await;
    let reply = client.reply().await;
    let told = if reply["code"] == "200" { &reply["data"]["uid"] } else { &reply["message"] };
    (reply["code"].as_str().unwrap().to_owned(), told.as_str().unwrap_or_default().to_owned())
}

async fn admits(gateway: &Gateway, token: &str) {
    assert_eq!(bind(gateway, token).await, ("200".to_owned(), "1074".to_owned()));
}

async fn refuses(gateway: &Gateway, token: &str, why: &str) {
    let (code, reason) = bind(gateway, token).await;
    assert!(code != "200" && reason.contains(why), "expected {why:?}, got {code} {reason:?}");
}

#[tokio::test]
async fn tokens_of_both_kinds_let_in_by_one_request_for_the_keys() {
    let (rsa, curve, stranger) = (Pair::rsa("r1"), Pair::curve("c1"), Pair::rsa("r1"));
    let issuer = Issuer::start(&[&rsa, &curve]).await;
    let gateway = issuer.gateway("");
    for _ in 0..3 {
        admits(&gateway, &rsa.token()).await;
        admits(&gateway, &curve.token()).await;
    }
    refuses(&gateway, &stranger.token(), "the signature does not match").await;
    let altered = rsa.token().replacen('.', ".e", 1);
    refuses(&gateway, &altered, "token: ").await;
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test]
async fn token_cannot_choose_the_algorithm_of_its_check() {
    let (rsa, curve) = (Pair::rsa("r1"), Pair::curve("c1"));
    let issuer = Issuer::start(&[&rsa, &curve]).await;
    let gateway = issuer.gateway("");
    // The classic attack: the public key as the secret of an HMAC.
    for secret in [rsa.jwk().to_string(), rsa.jwk()["n"].as_str().unwrap().to_owned()] {
        let signed = over(&json!({"alg": "HS256", "kid": "r1"}), &claims());
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(signed.as_bytes());
        let token = format!("{signed}.{}", text(&mac.finalize().into_bytes()));
        refuses(&gateway, &token, "expected alg RS256 or ES256, got \"HS256\"").await;
    }
    let none = format!("{}.", over(&json!({"alg": "none"}), &claims()));
    refuses(&gateway, &none, "expected alg RS256 or ES256, got \"none\"").await;
    let crossed = curve.sign(&json!({"alg": "ES256", "kid": "r1"}), &claims());
    refuses(&gateway, &crossed, "expected alg RS256, got \"ES256\"").await;
    let claimed = rsa.sign(&json!({"alg": "ES256", "kid": "c1"}), &claims());
    refuses(&gateway, &claimed, "the signature does not match").await;
}

#[tokio::test]
async fn claims_are_checked_behind_a_good_signature() {
    let pair = Pair::curve("c1");
    let issuer = Issuer::start(&[&pair]).await;
    let gateway = issuer.gateway("");
    for (name, value, why) in [
        ("exp", json!(now() - 60), "expired"),
        ("nbf", json!(now() + 600), "not valid yet"),
        ("aud", json!("another"), "aud: expected this service"),
        ("iss", json!("https://elsewhere.example"), "iss: expected a trusted issuer"),
    ] {
        let mut claims = claims();
        claims[name] = value;
        refuses(&gateway, &pair.sign(&pair.header(), &claims), why).await;
    }
    admits(&gateway, &pair.token()).await;
}

#[tokio::test]
async fn unknown_key_names_cause_at_most_one_request_per_interval() {
    let (old, new) = (Pair::rsa("2025"), Pair::curve("2026"));
    let issuer = Issuer::start(&[&old]).await;
    let gateway = issuer.gateway("interval = 3600");
    admits(&gateway, &old.token()).await;
    assert_eq!(issuer.asked(), 1);

    // Within the interval, for any invented key names and any number of concurrent requests.
    issuer.publish(&[&old, &new]);
    for name in 0..20 {
        let unknown = old.sign(&json!({"alg": "RS256", "kid": format!("k{name}")}), &claims());
        refuses(&gateway, &unknown, "no key is named").await;
    }
    refuses(&gateway, &new.token(), "no key is named \"2026\"").await;
    assert_eq!(issuer.asked(), 1);

    // After the interval, the first token of the new key triggers a fetch, and both keys are valid.
    gateway.folder.put("jwks-auth.toml", issuer.manifest("interval = 1").as_bytes());
    gateway.plugin_until("jwks-auth", |plugin| plugin["version"] == 2).await;
    admits(&gateway, &new.token()).await;
    admits(&gateway, &old.token()).await;

    // The issuer withdraws the old key: it expires with the keys' TTL.
    issuer.publish(&[&new]);
    gateway.folder.put("jwks-auth.toml", issuer.manifest("interval = 1\nttl = 1").as_bytes());
    gateway.plugin_until("jwks-auth", |plugin| plugin["version"] == 3).await;
    let begun = std::time::Instant::now();
    while bind(&gateway, &old.token()).await.0 == "200" {
        assert!(begun.elapsed().as_secs() < 100, "a revoked key is still accepted");
    }
    refuses(&gateway, &old.token(), "no key is named \"2025\"").await;
    admits(&gateway, &new.token()).await;
}

#[tokio::test]
async fn a_new_key_is_found_while_the_node_runs() {
    let (old, new) = (Pair::rsa("2025"), Pair::rsa("2026"));
    let issuer = Issuer::start(&[&old]).await;
    let gateway = issuer.gateway("interval = 1");
    admits(&gateway, &old.token()).await;
    issuer.publish(&[&old, &new]);
    let begun = std::time::Instant::now();
    // The client retries, as its reply instructs, until the interval is over.
    let mut tries = 0;
    while bind(&gateway, &new.token()).await.0 != "200" {
        tries += 1;
        assert!(begun.elapsed().as_secs() < 100, "the new key was not found in {tries} tries");
    }
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap();
    assert!(
        issuer.asked() <= 3 + seconds + seconds / 8,
        "{} requests in {seconds} s and {tries} tries",
        issuer.asked()
    );
    admits(&gateway, &old.token()).await;
}

#[tokio::test]
async fn issuer_outage_keeps_known_keys_valid_and_refuses_without_keys() {
    let pair = Pair::rsa("r1");
    let issuer = Issuer::start(&[&pair]).await;
    issuer.breaks();
    let gateway = issuer.gateway("interval = 1\nttl = 1");
    let (code, reason) = bind(&gateway, &pair.token()).await;
    assert_eq!((code.as_str(), reason.as_str()), ("503", "token: the keys of its issuer cannot be had now"));
    gateway.said("expected status 200, got 500").await;

    issuer.publish(&[&pair]);
    let begun = std::time::Instant::now();
    while bind(&gateway, &pair.token()).await.0 != "200" {
        assert!(begun.elapsed().as_secs() < 100, "the plugin did not ask the issuer again");
    }
    issuer.breaks();
    let known = issuer.asked();
    while issuer.asked() < known + 2 {
        admits(&gateway, &pair.token()).await;
    }
}

#[tokio::test]
async fn jwks_request_beyond_the_operators_list_is_not_sent() {
    let pair = Pair::rsa("r1");
    let issuer = Issuer::start(&[&pair]).await;
    let manifest = issuer.manifest("").replace("private = [\"127.0.0.1\"]", "");
    let gateway = Setup::default().no_plugins().plugin("jwks-auth").manifest("jwks-auth", &manifest).start();
    refuses(&gateway, &pair.token(), "the keys of its issuer cannot be had now").await;
    gateway.said("private = [").await;
    assert_eq!(issuer.asked(), 0);
}

//! The Pusher protocol, version 7, as Sockudo and others serve it, and its HTTP API.
//!
//! Every channel is private, so a receiver proves its identity by an HMAC. Options: `id`, `key`, `secret` of the
//! application, `api` (URL of the HTTP API, by default the same host).

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::Md5;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::options::{JSON, Options, Url, post};
use super::{Adapter, EVERYONE, Part, PartKind, PeerClient};
use crate::load::payload;
use crate::load::traffic::Shape;
use crate::load::websocket::{self, TEXT};
use crate::load::wire::{Item, To, room, uid};

#[derive(Debug)]
struct Pusher {
    url: Url,
    api: Url,
    id: String,
    key: String,
    secret: String,
}

pub(super) fn open(options: &mut Options) -> anyhow::Result<(Box<dyn Adapter>, SocketAddr)> {
    let url = options.url.clone();
    url.expect(&["ws"])?;
    let api = options.take("api").unwrap_or_else(|| format!("http://{}", url.host));
    let api = Url::parse(&api)?;
    api.expect(&["http"])?;
    let id = options.need("id", "ID of the application")?;
    let key = options.need("key", "KEY of the application")?;
    let secret = options.need("secret", "SECRET of the application")?;
    let address = api.address()?;
    Ok((Box::new(Pusher { url, api, id, key, secret }), address))
}

impl Adapter for Pusher {
    fn takes(&self, _: Shape) -> bool {
        true
    }

    /// Sockudo closes the connection after each response.
    fn pipelines(&self) -> bool {
        false
    }

    fn upgrade(&self) -> Option<Vec<u8>> {
        let path = format!("{}/app/{}?protocol=7&client=skylark-bench&version=1", self.url.path, self.key);
        Some(websocket::upgrade(&self.url.host, &path, None))
    }

    /// The server speaks first: it sends the socket id, which the proofs need.
    fn hello(&self, _: &PeerClient) -> Vec<u8> {
        Vec::new()
    }

    fn welcomes(&self, client: &PeerClient) -> usize {
        client.channels.len()
    }

    fn part<'a>(&self, payload: &'a [u8]) -> Part<'a> {
        Part { kind: kind_of(payload), body: payload, len: payload.len() }
    }

    fn answer(&self, client: &PeerClient, part: Part<'_>) -> Vec<u8> {
        let Some(socket) = socket(part.body) else {
            return websocket::from_client(TEXT, br#"{"event":"pusher:pong","data":{}}"#);
        };
        let subscribe = |channel: &String| {
            let channel = private(channel);
            let auth = format!("{}:{}", self.key, self.sign(&format!("{socket}:{channel}")));
            let data = json!({ "channel": channel, "auth": auth });
            let event = json!({ "event": "pusher:subscribe", "data": data });
            websocket::from_client(TEXT, event.to_string().as_bytes())
        };
        client.channels.iter().flat_map(subscribe).collect()
    }

    fn request(&self, out: &mut Vec<u8>, items: &[Item], _: u32) {
        let mut body = Vec::with_capacity(items.len() * (payload::SIZE + 100));
        let name = if let [one] = items {
            event(&mut body, one);
            "events"
        } else {
            body.extend_from_slice(br#"{"batch":["#);
            for (number, item) in items.iter().enumerate() {
                if number > 0 {
                    body.push(b',');
                }
                event(&mut body, item);
            }
            body.extend_from_slice(b"]}");
            "batch_events"
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let path = self.signed(&format!("{}/apps/{}/{name}", self.api.path, self.id), &body, now);
        post(out, &self.api.host, &path, JSON, &body);
    }

    fn is_refusal(&self, body: &[u8]) -> bool {
        body.starts_with(br#"{"error""#)
    }
}

impl Pusher {
    fn sign(&self, text: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()).expect("HMAC accepts a key of any length");
        mac.update(text.as_bytes());
        hex(&mac.finalize().into_bytes())
    }

    /// The path with the signed query, at `now` seconds since 1970.
    fn signed(&self, path: &str, body: &[u8], now: u64) -> String {
        let sum = hex(&Md5::digest(body));
        let query = format!("auth_key={}&auth_timestamp={now}&auth_version=1.0&body_md5={sum}", self.key);
        let signature = self.sign(&format!("POST\n{path}\n{query}"));
        format!("{path}?{query}&auth_signature={signature}")
    }
}

fn private(channel: &str) -> String {
    format!("private-{channel}")
}

fn event(body: &mut Vec<u8>, item: &Item) {
    let channel = match item.to {
        To::Everyone => private(EVERYONE),
        To::User(number) => private(&uid(number)),
        To::Room { size, first } => private(&room(size, first)),
    };
    // SDKs encode an object as JSON text.
    body.extend_from_slice(format!(r#"{{"name":"bench","channel":"{channel}","data":"{{\"text\":\""#).as_bytes());
    payload::write(body, item.mark, item.size);
    body.extend_from_slice(br#"\"}"}"#);
}

/// Classifies a message by its event name, at any position in the object.
fn kind_of(payload: &[u8]) -> PartKind {
    const NAME: &[u8] = br#""event":""#;
    let Some(at) = payload.windows(NAME.len()).position(|part| part == NAME) else { return PartKind::Invalid };
    let name = &payload[at + NAME.len()..];
    if name.starts_with(b"bench\"") {
        PartKind::Message
    } else if name.starts_with(b"pusher:connection_established\"") || name.starts_with(b"pusher:ping\"") {
        PartKind::NeedsAnswer
    } else if name.starts_with(b"pusher_internal:subscription_succeeded\"") {
        PartKind::Welcome
    } else if name.starts_with(b"pusher:error\"") || name.starts_with(b"pusher:subscription_error\"") {
        PartKind::Refusal
    } else {
        PartKind::Other
    }
}

/// The socket id, if the message is the greeting.
fn socket(payload: &[u8]) -> Option<String> {
    let event: Value = serde_json::from_slice(payload).ok()?;
    let data: Value = serde_json::from_str(event.get("data")?.as_str()?).ok()?;
    Some(data.get("socket_id")?.as_str()?.to_owned())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Peer;
    use super::*;
    use crate::load::payload::Mark;

    fn pusher() -> Pusher {
        let url = Url::parse("ws://127.0.0.1:6001").unwrap();
        let text = str::to_owned;
        Pusher {
            api: url.clone(),
            url,
            id: text("3"),
            key: text("278d425bdf160c739803"),
            secret: text("7ad3773142a6692b25b8"),
        }
    }

    /// The example of the protocol's documentation.
    #[test]
    fn a_request_is_signed_as_the_documents_say() {
        let body = br#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
        let path = pusher().signed("/apps/3/events", body, 1_353_088_179);
        assert!(path.contains("body_md5=ec365a775a4cd0599faeb73354201b6f"), "{path}");
        assert!(
            path.ends_with("auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"),
            "{path}"
        );
    }

    #[test]
    fn a_greeting_is_answered_with_a_proof_for_each_channel() {
        let peer = Peer::parse("pusher=ws://127.0.0.1:6001,id=3,key=k,secret=s").unwrap();
        let client = Box::leak(Box::new(peer)).client(1, Vec::new());
        let greeting = br#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"1234.1234\",\"activity_timeout\":120}"}"#;
        let mut pusher = pusher();
        let part = pusher.part(greeting);
        assert_eq!(part.kind, PartKind::NeedsAnswer);
        assert_eq!(pusher.welcomes(&client), 2);
        // The example of the protocol's documentation.
        pusher.secret = "7ad3773142a6692b25b8".to_owned();
        assert_eq!(
            pusher.sign("1234.1234:private-foobar"),
            "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"
        );
        let frames = pusher.answer(&client, part);
        let first = websocket::split(&frames).unwrap();
        let body = websocket::unmasked(&frames[..first.len + 4]);
        let event: Value = serde_json::from_slice(&body).unwrap();
        let proof = pusher.sign("1234.1234:private-all");
        assert_eq!(event["data"]["channel"], "private-all");
        assert_eq!(event["data"]["auth"], format!("278d425bdf160c739803:{proof}"));
    }

    /// Recorded from Sockudo 5.2.0.
    #[test]
    fn an_event_is_known_by_its_name() {
        for (expected, payload) in [
            (PartKind::Message, r#"{"event":"bench","channel":"private-u1","data":"{\"text\":\"~#0\"}"}"#),
            (
                PartKind::Welcome,
                r#"{"event":"pusher_internal:subscription_succeeded","channel":"private-all","data":"{}"}"#,
            ),
            (PartKind::Other, r#"{"event":"pusher:pong"}"#),
            (
                PartKind::Refusal,
                r#"{"event":"pusher:error","data":{"code":4009,"message":"Authentication error: Channel requires authentication"}}"#,
            ),
            (PartKind::NeedsAnswer, r#"{"event":"pusher:ping","data":{}}"#),
            (PartKind::Invalid, r#"{"id":1}"#),
        ] {
            let part = pusher().part(payload.as_bytes());
            assert_eq!((part.kind, part.len), (expected, payload.len()), "{payload}");
        }
        assert!(!pusher().is_refusal(br#"{"ok":true}"#) && pusher().is_refusal(br#"{"error":"unknown app"}"#));
    }

    #[test]
    fn several_events_are_one_batch() {
        let mut out = Vec::new();
        let item = |to| Item { to, mark: Mark { sequence: 3, stamp: 4 }, size: payload::SIZE };
        pusher().request(&mut out, &[item(To::User(2)), item(To::Everyone)], 9);
        let text = String::from_utf8(out).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /apps/3/batch_events?auth_key="), "{head}");
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["batch"][0]["channel"], "private-u2");
        let data: Value = serde_json::from_str(body["batch"][1]["data"].as_str().unwrap()).unwrap();
        assert!(payload::is_intact(data["text"].as_str().unwrap().as_bytes()));
    }
}

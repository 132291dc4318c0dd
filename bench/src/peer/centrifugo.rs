//! Centrifugo's client protocol, as JSON lines and as protobuf, and its HTTP API.
//!
//! A receiver uses an HS256 token that lists its channels, so that one command connects, authenticates and subscribes.
//! Options: `key` (of the HTTP API), `secret` (of the tokens), `api` (its URL, by default `/api` of the same host).

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use skylark::cli::token;

use super::options::{JSON, Options, Url, post};
use super::{Adapter, EVERYONE, Part, PartKind, PeerClient, field, with_length};
use crate::load::payload;
use crate::load::traffic::Shape;
use crate::load::websocket::{self, BINARY, TEXT};
use crate::load::wire::{Item, To, room, uid};

/// Coding of client frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Json,
    Protobuf,
}

#[derive(Debug)]
struct Centrifugo {
    coding: Coding,
    url: Url,
    api: Url,
    /// Header line with the API key.
    headers: String,
    secret: String,
}

pub(super) fn open(options: &mut Options, coding: Coding) -> anyhow::Result<(Box<dyn Adapter>, SocketAddr)> {
    let url = options.url.clone();
    url.expect(&["ws"])?;
    let api = options.take("api").unwrap_or_else(|| format!("http://{}/api", url.host));
    let api = Url::parse(&api)?;
    api.expect(&["http"])?;
    let headers = format!("{JSON}X-API-Key: {}\r\n", options.need("key", "KEY of its HTTP API")?);
    let secret = options.need("secret", "SECRET of its connection tokens")?;
    let address = api.address()?;
    Ok((Box::new(Centrifugo { coding, url, api, headers, secret }), address))
}

/// The id of the only command that a receiver sends.
const CONNECT: u32 = 1;

impl Adapter for Centrifugo {
    fn takes(&self, _: Shape) -> bool {
        true
    }

    fn upgrade(&self) -> Option<Vec<u8>> {
        let subprotocol = (self.coding == Coding::Protobuf).then_some("centrifuge-protobuf");
        Some(websocket::upgrade(&self.url.host, self.url.path_or("/connection/websocket"), subprotocol))
    }

    fn hello(&self, client: &PeerClient) -> Vec<u8> {
        let expires = SystemTime::now() + Duration::from_secs(3600);
        let expires = expires.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = json!({ "sub": client.user, "exp": expires, "channels": client.channels });
        let token = token::sign(None, self.secret.as_bytes(), &claims);
        match self.coding {
            Coding::Json => websocket::from_client(
                TEXT,
                json!({ "id": CONNECT, "connect": { "token": token } }).to_string().as_bytes(),
            ),
            Coding::Protobuf => {
                // Command { 1: id, 4: ConnectRequest { 1: token } }
                let connect = field(1, token.as_bytes());
                let command = [&[0x08, 1], field(4, &connect).as_slice()].concat();
                websocket::from_client(BINARY, &with_length(&command))
            }
        }
    }

    fn welcomes(&self, _: &PeerClient) -> usize {
        1
    }

    fn part<'a>(&self, payload: &'a [u8]) -> Part<'a> {
        match self.coding {
            Coding::Json => line(payload),
            Coding::Protobuf => reply(payload).unwrap_or(Part::invalid(payload)),
        }
    }

    fn answer(&self, _: &PeerClient, _: Part<'_>) -> Vec<u8> {
        match self.coding {
            Coding::Json => websocket::from_client(TEXT, b"{}"),
            Coding::Protobuf => websocket::from_client(BINARY, &[0]),
        }
    }

    fn request(&self, out: &mut Vec<u8>, items: &[Item], _: u32) {
        let mut body = Vec::with_capacity(items.len() * (payload::SIZE + 80));
        let mut path = self.api.path.clone();
        if let [one] = items {
            path.push_str("/publish");
            publication(&mut body, one);
        } else {
            path.push_str("/batch");
            body.extend_from_slice(br#"{"commands":["#);
            for (number, item) in items.iter().enumerate() {
                body.extend_from_slice(if number == 0 { br#"{"publish":"# } else { br#",{"publish":"# });
                publication(&mut body, item);
                body.push(b'}');
            }
            body.extend_from_slice(b"]}");
        }
        post(out, &self.api.host, &path, &self.headers, &body);
    }

    fn is_refusal(&self, body: &[u8]) -> bool {
        body.windows(ERROR.len()).any(|part| part == ERROR)
    }
}

const ERROR: &[u8] = br#""error":{"#;

fn publication(body: &mut Vec<u8>, item: &Item) {
    let channel = match item.to {
        To::Everyone => EVERYONE.to_owned(),
        To::User(number) => uid(number),
        To::Room { size, first } => room(size, first),
    };
    body.extend_from_slice(format!(r#"{{"channel":"{channel}","data":{{"text":""#).as_bytes());
    payload::write(body, item.mark, item.size);
    body.extend_from_slice(br#""}}"#);
}

/// Splits the first line.
fn line(payload: &[u8]) -> Part<'_> {
    let end = payload.iter().position(|byte| *byte == b'\n').unwrap_or(payload.len());
    let body = &payload[..end];
    let kind = if body.starts_with(br#"{"push":{"#) {
        PartKind::Message
    } else if body == b"{}" {
        PartKind::NeedsAnswer
    } else if body.starts_with(br#"{"id":1,"connect":"#) {
        PartKind::Welcome
    } else if body.starts_with(br#"{"id":1,"error":"#) {
        PartKind::Refusal
    } else if body.starts_with(b"{") {
        PartKind::Other
    } else {
        PartKind::Invalid
    };
    Part { kind, body, len: (end + 1).min(payload.len()) }
}

/// Splits the first `Reply` with its length prefix; `None` if it is invalid. An empty reply is a ping.
fn reply(payload: &[u8]) -> Option<Part<'_>> {
    let (len, head) = number(payload)?;
    let body = payload.get(head..head.checked_add(len)?)?;
    // The first field after the id gives the kind: 2 error, 4 push, 5 connect.
    let fields = if body.first() == Some(&0x08) { body.get(1 + number(&body[1..])?.1..)? } else { body };
    let kind = match fields.first() {
        None if body.is_empty() => PartKind::NeedsAnswer,
        Some(0x12) => PartKind::Refusal,
        Some(0x22) => PartKind::Message,
        Some(0x2a) => PartKind::Welcome,
        _ => PartKind::Other,
    };
    Some(Part { kind, body, len: head + len })
}

/// Decodes a varint; returns its value and its length.
fn number(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::Peer;
    use super::*;
    use crate::load::payload::Mark;

    /// Recorded from Centrifugo 6.9.1: the answer to `connect`, and pushes, of which one frame contains several.
    const WELCOME: &[u8] = br#"{"id":1,"connect":{"client":"bad9930e-a767-47a0-b1d1-171a25a4f41f","version":"6.9.1 OSS","expires":true,"ttl":3600,"subs":{"u1":{},"all":{}},"ping":3,"pong":true}}"#;
    const LINES: &[u8] = b"{\"push\":{\"channel\":\"all\",\"pub\":{\"data\":{\"text\": \"~#0\"}}}}\n{\"push\":{\"channel\":\"all\",\"pub\":{\"data\":{\"text\": \"~#1\"}}}}\n{}";
    const WELCOME_PB: &[u8] = b"O\x08\x01*K\n$cb1a9c98-4d89-481e-b368-2dfc80709cc3\x12\t6.9.1 OSS\x18\x01 \x90\x1c2\x07\n\x03all\x12\x002\x06\n\x02u1\x12\x008\x03@\x01";
    const PUSHES_PB: &[u8] =
        b"\x1a\"\x18\x12\x03all\"\x11\"\x0f{\"text\": \"~#0\"}\x1a\"\x18\x12\x03all\"\x11\"\x0f{\"text\": \"~#1\"}\x00";

    fn peer(kind: &str) -> &'static Peer {
        let text = format!("{kind}=ws://127.0.0.1:8000,key=k,secret=s");
        Box::leak(Box::new(Peer::parse(&text).unwrap()))
    }

    fn parts<'a>(kind: &str, mut payload: &'a [u8]) -> Vec<(PartKind, &'a [u8])> {
        let mut parts = Vec::new();
        while !payload.is_empty() {
            let Part { kind, body, len } = peer(kind).adapter.part(payload);
            parts.push((kind, body));
            payload = &payload[len..];
        }
        parts
    }

    fn kinds(kind: &str, payload: &[u8]) -> Vec<PartKind> {
        parts(kind, payload).into_iter().map(|(kind, _)| kind).collect()
    }

    #[test]
    fn lines_of_one_frame_are_parts() {
        assert_eq!(kinds("centrifugo", WELCOME), [PartKind::Welcome]);
        assert_eq!(kinds("centrifugo", LINES), [PartKind::Message, PartKind::Message, PartKind::NeedsAnswer]);
        assert!(parts("centrifugo", LINES)[1].1.ends_with(b"~#1\"}}}}"));
        assert_eq!(
            kinds("centrifugo", br#"{"id":1,"error":{"code":109,"message":"token expired"}}"#),
            [PartKind::Refusal]
        );
        assert_eq!(kinds("centrifugo", b"\x02"), [PartKind::Invalid]);
    }

    #[test]
    fn replies_of_one_frame_are_parts() {
        assert_eq!(kinds("centrifugo-protobuf", WELCOME_PB), [PartKind::Welcome]);
        assert_eq!(
            kinds("centrifugo-protobuf", PUSHES_PB),
            [PartKind::Message, PartKind::Message, PartKind::NeedsAnswer]
        );
        assert!(parts("centrifugo-protobuf", PUSHES_PB)[1].1.ends_with(b"~#1\"}"));
        // Reply { 1: id 1, 2: Error { 1: 109 } }
        assert_eq!(kinds("centrifugo-protobuf", b"\x06\x08\x01\x12\x02\x08\x6d"), [PartKind::Refusal]);
        // The length exceeds the frame.
        assert_eq!(kinds("centrifugo-protobuf", &PUSHES_PB[..20]), [PartKind::Invalid]);
    }

    #[test]
    fn one_command_connects_with_a_token_that_names_the_channels() {
        let client = peer("centrifugo").client(7, Vec::new());
        let frame = client.peer.adapter.hello(&client);
        let text = String::from_utf8(websocket::unmasked(&frame)).unwrap();
        let command: serde_json::Value = serde_json::from_str(&text).unwrap();
        let token = command["connect"]["token"].as_str().unwrap();
        assert_eq!(command["id"], 1);
        assert_eq!(token.split('.').count(), 3);

        let client = peer("centrifugo-protobuf").client(7, Vec::new());
        let frame = websocket::unmasked(&client.peer.adapter.hello(&client));
        let (len, head) = number(&frame).unwrap();
        assert_eq!(len, frame.len() - head);
        assert_eq!(frame[head..head + 3], [0x08, 1, 0x22]);
        assert!(frame.ends_with(&[frame[frame.len() - 1]]) && frame.windows(3).any(|part| part == b"eyJ"));
    }

    #[test]
    fn several_publications_are_one_batch() {
        let mut out = Vec::new();
        let item = |to| Item { to, mark: Mark { sequence: 3, stamp: 4 }, size: payload::SIZE };
        peer("centrifugo").adapter.request(&mut out, &[item(To::User(2)), item(To::Everyone)], 9);
        let text = String::from_utf8(out).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /api/batch HTTP/1.1\r\n") && head.contains("X-API-Key: k\r\n"), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["commands"][0]["publish"]["channel"], "u2");
        assert_eq!(body["commands"][1]["publish"]["channel"], "all");

        let mut out = Vec::new();
        peer("centrifugo").adapter.request(&mut out, &[item(To::Room { size: 10, first: 20 })], 9);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("POST /api/publish ") && text.contains(r#"{"channel":"r10-20","data":"#), "{text}");
    }

    #[test]
    fn an_error_in_an_answer_of_200_is_a_refusal() {
        let adapter = &peer("centrifugo").adapter;
        assert!(adapter.is_refusal(br#"{"replies":[{"publish":{}},{"error":{"code":107,"message":"bad request"}}]}"#));
        assert!(!adapter.is_refusal(br#"{"replies":[{"publish":{}},{"publish":{}}]}"#));
    }
}

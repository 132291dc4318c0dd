//! CIM's protocol, protobuf over WebSocket or TCP, and the only push request of its back end: a form.
//!
//! Options:
//! - `api`: URL of the push, such as `http://HOST:PORT/api/message/send`
//! - `secret`: receivers use an HS256 token instead of a bare user id
//! - `push=skylark`: `api` is the HTTP API of a node, to measure the node's cim listener

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::bail;
use serde_json::json;
use skylark::cli::token;

use super::options::{Options, Url, post};
use super::{Adapter, Part, PartKind, PeerClient, field};
use crate::load::payload;
use crate::load::traffic::Shape;
use crate::load::websocket::{self, BINARY, Frame};
use crate::load::wire::{Item, To, Wire, uid};

#[derive(Debug)]
struct Cim {
    url: Url,
    api: Url,
    secret: Option<String>,
    push: Push,
}

/// Receiver of the pushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Push {
    /// One message to one user as a form; the original offers nothing else.
    Form,
    /// A node.
    Node,
}

pub(super) fn open(options: &mut Options) -> anyhow::Result<(Box<dyn Adapter>, SocketAddr)> {
    let url = options.url.clone();
    url.expect(&["ws", "tcp"])?;
    let api = Url::parse(&options.need("api", "URL of the push, such as http://HOST:PORT/api/message/send")?)?;
    api.expect(&["http"])?;
    let push = match options.take("push").as_deref() {
        None => Push::Form,
        Some("skylark") => Push::Node,
        Some(other) => bail!("push: expected skylark or nothing, got {other:?}"),
    };
    let address = api.address()?;
    Ok((Box::new(Cim { url, api, secret: options.take("secret"), push }), address))
}

/// Types of frames.
const PONG: u8 = 0;
const PING: u8 = 1;
const MESSAGE: u8 = 2;
const SENT: u8 = 3;
const REPLY: u8 = 4;
/// Over TCP: the type, and the length of the body in little-endian order.
const HEAD: usize = 3;

impl Adapter for Cim {
    fn takes(&self, shape: Shape) -> bool {
        self.push == Push::Node || shape == Shape::Unicast { batch: 1 }
    }

    fn upgrade(&self) -> Option<Vec<u8>> {
        (!self.is_tcp()).then(|| websocket::upgrade(&self.url.host, self.url.path_or("/"), None))
    }

    fn hello(&self, client: &PeerClient) -> Vec<u8> {
        let mut body = field(1, b"client_bind");
        let mut entry = |name: &str, value: &str| {
            let entry = [field(1, name.as_bytes()), field(2, value.as_bytes())].concat();
            body.extend_from_slice(&field(3, &entry));
        };
        entry("uid", &client.user);
        entry("channel", "bench");
        entry("deviceId", &client.user);
        if let Some(secret) = &self.secret {
            let expires = SystemTime::now() + Duration::from_secs(3600);
            let expires = expires.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let claims = json!({ "sub": client.user, "exp": expires, "rooms": client.channels });
            entry("token", &token::sign(None, secret.as_bytes(), &claims));
        }
        self.frame(SENT, &body)
    }

    fn welcomes(&self, _: &PeerClient) -> usize {
        1
    }

    fn split<'a>(&self, bytes: &'a [u8]) -> Option<Frame<'a>> {
        if !self.is_tcp() {
            return websocket::split(bytes);
        }
        let [_, low, high] = *bytes.first_chunk::<HEAD>()?;
        let len = HEAD + usize::from(u16::from_le_bytes([low, high]));
        Some(Frame { opcode: BINARY, payload: bytes.get(..len)?, len })
    }

    fn part<'a>(&self, payload: &'a [u8]) -> Part<'a> {
        let head = if self.is_tcp() { HEAD } else { 1 };
        let (Some(kind), Some(body)) = (payload.first(), payload.get(head..)) else { return Part::invalid(payload) };
        let kind = match *kind {
            PING => PartKind::NeedsAnswer,
            MESSAGE => PartKind::Message,
            REPLY => reply(body),
            _ => PartKind::Invalid,
        };
        Part { kind, body, len: payload.len() }
    }

    fn answer(&self, _: &PeerClient, _: Part<'_>) -> Vec<u8> {
        self.frame(PONG, b"PONG")
    }

    fn request(&self, out: &mut Vec<u8>, items: &[Item], receivers: u32) {
        let (Push::Form, [Item { to: To::User(user), mark, size }]) = (self.push, items) else {
            return Wire::Http.request(out, items, receivers);
        };
        let mut text = Vec::with_capacity(*size);
        payload::write(&mut text, *mark, *size);
        let text = String::from_utf8_lossy(&text).replace('#', "%23");
        let body = format!("sender=0&receiver={}&action=bench&content={text}", uid(*user));
        let form = "Content-Type: application/x-www-form-urlencoded\r\n";
        post(out, &self.api.host, self.api.path_or("/api/message/send"), form, body.as_bytes());
    }

    fn is_refusal(&self, _: &[u8]) -> bool {
        false
    }
}

impl Cim {
    fn is_tcp(&self) -> bool {
        self.url.scheme == "tcp"
    }

    fn frame(&self, kind: u8, body: &[u8]) -> Vec<u8> {
        if !self.is_tcp() {
            return websocket::from_client(BINARY, &[&[kind], body].concat());
        }
        let [low, high] = u16::try_from(body.len()).expect("the body of a client frame is short").to_le_bytes();
        [&[kind, low, high], body].concat()
    }
}

/// Classifies a reply by key and code, its first two fields.
fn reply(body: &[u8]) -> PartKind {
    let bind = field(1, b"client_bind");
    if body.strip_prefix(bind.as_slice()).is_some_and(|rest| rest.starts_with(&field(2, b"200"))) {
        PartKind::Welcome
    } else {
        PartKind::Refusal
    }
}

#[cfg(test)]
mod tests {
    use super::super::Peer;
    use super::*;
    use crate::load::payload::Mark;

    fn client(options: &str) -> PeerClient {
        let peer = Peer::parse(&format!("cim={options},api=http://127.0.0.1:8080")).unwrap();
        Box::leak(Box::new(peer)).client(7, Vec::new())
    }

    #[test]
    fn a_receiver_binds_with_its_user() {
        let client = client("tcp://127.0.0.1:23456");
        let hello = client.peer.adapter.hello(&client);
        assert_eq!(client.peer.adapter.upgrade(), None);
        assert_eq!(hello[..3], [SENT, u8::try_from(hello.len() - HEAD).unwrap(), 0]);
        assert!(hello[HEAD..].starts_with(b"\x0a\x0bclient_bind"));
        assert!(hello.windows(11).any(|part| part == b"\x0a\x03uid\x12\x02u7\x1a\x10"));
    }

    /// Frames of a node's cim listeners, byte for byte as in the golden vectors.
    #[test]
    fn frames_are_cut_and_known_over_both_transports() {
        let reply = b"\x0a\x0bclient_bind\x12\x03200";
        let web = client("ws://127.0.0.1:34567");
        let part = |kind: u8, body: &[u8]| web.peer.adapter.part(&[&[kind], body].concat()).kind;
        assert_eq!(part(REPLY, reply), PartKind::Welcome);
        assert_eq!(part(REPLY, b"\x0a\x10client_handshake\x12\x03401"), PartKind::Refusal);
        assert_eq!(part(PING, b"PING"), PartKind::NeedsAnswer);
        assert_eq!(part(MESSAGE, b"\x08\x01"), PartKind::Message);
        assert_eq!(part(9, b""), PartKind::Invalid);
        assert_eq!(websocket::unmasked(&web.peer.adapter.answer(&web, Part::invalid(b""))), b"\0PONG");

        let tcp = client("tcp://127.0.0.1:23456");
        let bytes = b"\x01\x04\x00PING\x02\x01";
        let frame = tcp.peer.adapter.split(bytes).unwrap();
        assert_eq!((frame.payload, frame.len), (&bytes[..7], 7));
        assert_eq!(tcp.peer.adapter.part(frame.payload).kind, PartKind::NeedsAnswer);
        assert_eq!(tcp.peer.adapter.split(&bytes[7..]), None);
        assert_eq!(tcp.peer.adapter.answer(&tcp, Part::invalid(b"")), b"\0\x04\0PONG");
    }

    #[test]
    fn the_original_pushes_one_message_by_a_form() {
        let client = client("ws://127.0.0.1:34567");
        let adapter = &client.peer.adapter;
        assert!(adapter.takes(Shape::Unicast { batch: 1 }) && !adapter.takes(Shape::Unicast { batch: 100 }));
        assert!(!adapter.takes(Shape::FanOut { burst: 1 }));
        let mut out = Vec::new();
        adapter.request(
            &mut out,
            &[Item { to: To::User(2), mark: Mark { sequence: 3, stamp: 4 }, size: payload::SIZE }],
            9,
        );
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("POST /api/message/send HTTP/1.1\r\n"), "{text}");
        let (_, form) = text.split_once("\r\n\r\n").unwrap();
        let (_, content) = form_urlencoded::parse(form.as_bytes()).find(|(name, _)| name == "content").unwrap();
        assert!(form.contains("receiver=u2&") && payload::is_intact(content.as_bytes()), "{form}");
    }
}

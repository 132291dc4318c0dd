//! Protocols of publishers: the node's HTTP API, or the push protocol of the reference servers.
//!
//! The push protocol keeps a reference server free of other work. It starts with the four bytes `PUSH`, followed by
//! requests. A request is `u32 count`, then `count` times `u32 first receiver, u32 number of receivers, u32 length,
//! body` (all little-endian). The body is the payload of a WebSocket message. The answer is one byte per request, sent
//! when all of it was written or queued. A receiver gives its number in the path of its upgrade: `/?n=17`.

use std::io::Write as _;

use super::payload::{self, Mark};
use super::traffic::Shape;
use crate::peer::Peer;

/// Protocol of a publishing connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    Http,
    Push,
    /// The HTTP API of a peer.
    Peer(&'static Peer),
}

/// Receivers of an item, as a range of their numbers: rooms consist of neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    Everyone,
    /// The room of this size that starts at this receiver.
    Room {
        size: u32,
        first: u32,
    },
    User(u32),
}

/// One message of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Item {
    pub(crate) to: To,
    pub(crate) mark: Mark,
    /// Size of the text in bytes.
    pub(crate) size: usize,
}

/// First bytes of a publishing connection to a reference server.
pub(crate) const PUSH: &[u8] = b"PUSH";
/// Bytes before an item's body.
pub(crate) const ITEM_HEAD: usize = 12;

/// Placeholder for the fields of a node's frame around the text, so that both frames have the same size.
const FRONT: &[u8] = b"\x02------------------";
const BACK: &[u8] = b"----------------";

/// Name of the room of this size that starts at this receiver.
pub(crate) fn room(size: u32, first: u32) -> String {
    format!("r{size}-{first}")
}

/// Name of a receiver's user.
pub(crate) fn uid(number: u32) -> String {
    format!("u{number}")
}

impl Wire {
    /// Appends one request. The items of one request must all have the same receivers, or each a single user.
    pub(crate) fn request(self, out: &mut Vec<u8>, items: &[Item], receivers: u32) {
        match self {
            Self::Http => http(out, items),
            Self::Push => push(out, items, receivers),
            Self::Peer(peer) => peer.adapter.request(out, items, receivers),
        }
    }

    /// True if requests can be pipelined on one connection.
    pub(crate) fn pipelines(self) -> bool {
        match self {
            Self::Http | Self::Push => true,
            Self::Peer(peer) => peer.adapter.pipelines(),
        }
    }

    /// True if one request can have this shape.
    pub(crate) fn takes(self, shape: Shape) -> bool {
        match self {
            Self::Http | Self::Push => true,
            Self::Peer(peer) => peer.adapter.takes(shape),
        }
    }
}

fn push(out: &mut Vec<u8>, items: &[Item], receivers: u32) {
    out.extend_from_slice(&number(items.len()).to_le_bytes());
    for item in items {
        let (first, count) = match item.to {
            To::Everyone => (0, receivers),
            To::Room { size, first } => (first, size),
            To::User(number) => (number, 1),
        };
        for field in [first, count, number(FRONT.len() + item.size + BACK.len())] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        out.extend_from_slice(FRONT);
        payload::write(out, item.mark, item.size);
        out.extend_from_slice(BACK);
    }
}

fn number(len: usize) -> u32 {
    u32::try_from(len).expect("a request is far below 4 GiB")
}

fn http(out: &mut Vec<u8>, items: &[Item]) {
    let mut body = Vec::with_capacity(items.len() * (items[0].size + 64) + 64);
    let path = match (items, items[0].to) {
        ([one], To::Everyone) => {
            message(&mut body, one, None);
            "/send/all"
        }
        ([one], To::User(user)) => {
            message(&mut body, one, Some(user));
            "/send"
        }
        ([one], To::Room { size, first }) => {
            body.extend_from_slice(br#"{"message":"#);
            message(&mut body, one, None);
            put(&mut body, format_args!(r#","room":"{}"}}"#, room(size, first)));
            "/send/room"
        }
        (list, To::User(_)) => {
            body.push(b'[');
            for item in list {
                let To::User(user) = item.to else { unreachable!("a list goes to users") };
                message(&mut body, item, Some(user));
                body.push(b',');
            }
            close_list(&mut body);
            "/send/sendList"
        }
        (run, to) => {
            if let To::Room { size, first } = to {
                put(&mut body, format_args!(r#"{{"act":"SENDROOM","Uid":"{}","msg":["#, room(size, first)));
            } else {
                body.extend_from_slice(br#"{"act":"SENDALL","msg":["#);
            }
            for item in run {
                message(&mut body, item, None);
                body.push(b',');
            }
            close_list(&mut body);
            body.push(b'}');
            "/publish"
        }
    };
    let len = body.len();
    put(
        out,
        format_args!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len}\r\n\r\n"
        ),
    );
    out.extend_from_slice(&body);
}

fn message(out: &mut Vec<u8>, item: &Item, receiver: Option<u32>) {
    out.push(b'{');
    if let Some(number) = receiver {
        put(out, format_args!(r#""receiver":"{}","#, uid(number)));
    }
    out.extend_from_slice(br#""action":"bench","content":{"text":""#);
    payload::write(out, item.mark, item.size);
    out.extend_from_slice(br#""}}"#);
}

/// Replaces the comma after the last entry with the end of the list.
fn close_list(body: &mut [u8]) {
    if let Some(last) = body.last_mut() {
        *last = b']';
    }
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a Vec does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(items: &[Item]) -> (String, serde_json::Value) {
        let mut out = Vec::new();
        Wire::Http.request(&mut out, items, 10);
        let text = String::from_utf8(out).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        (head.split(' ').nth(1).unwrap().to_owned(), serde_json::from_str(body).unwrap())
    }

    fn item(to: To) -> Item {
        Item { to, mark: Mark { sequence: 0, stamp: 0 }, size: payload::SIZE }
    }

    #[test]
    fn each_kind_of_push_has_its_path_and_body() {
        let user = [item(To::User(1)), item(To::User(2))];
        let room = [item(To::Room { size: 10, first: 20 }); 2];
        assert_eq!(body(&user[..1]).0, "/send");
        let (path, list) = body(&user);
        assert_eq!((path.as_str(), &list[1]["receiver"]), ("/send/sendList", &"u2".into()));
        assert_eq!(body(&room[..1]).1["room"], "r10-20");
        let (path, envelope) = body(&room);
        assert_eq!((path.as_str(), &envelope["Uid"]), ("/publish", &"r10-20".into()));
        assert_eq!(body(&[item(To::Everyone)]).0, "/send/all");
        assert_eq!(body(&[item(To::Everyone); 16]).1["msg"].as_array().unwrap().len(), 16);
    }

    #[test]
    fn push_request_holds_its_receivers_and_its_length() {
        let mut out = Vec::new();
        Wire::Push.request(&mut out, &[item(To::Room { size: 10, first: 20 })], 100);
        let field = |at: usize| u32::from_le_bytes(*out[at..].first_chunk().unwrap());
        assert_eq!((field(0), field(4), field(8)), (1, 20, 10));
        assert_eq!(out.len(), 4 + ITEM_HEAD + field(12) as usize);
    }
}

//! The minimum of WebSocket for a measuring client: upgrade request, frame splitting, PONG.

/// One frame from a server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) opcode: u8,
    pub(crate) payload: &'a [u8],
    /// Length including the header.
    pub(crate) len: usize,
}

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

/// Kinds of frames from Skylark, in every dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ping,
    Message,
    Reply,
    Other,
}

/// Splits the frame at the start of `bytes`; `None` if it is incomplete.
pub(crate) fn split(bytes: &[u8]) -> Option<Frame<'_>> {
    let (&[first, second], rest) = bytes.split_first_chunk::<2>()?;
    let (head, len): (usize, usize) = match second & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(*rest.first_chunk()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?),
        len => (2, usize::from(len)),
    };
    let payload = bytes.get(head..head.checked_add(len)?)?;
    Some(Frame { opcode: first & 0x0f, payload, len: head + len })
}

/// Appends an unmasked server frame.
pub(crate) fn put(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(len @ ..=125), _) => out.push(len),
        (_, Ok(len)) => {
            out.push(126);
            out.extend_from_slice(&len.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// The kind of a frame: from its first byte, or from the number after `{"type":`.
pub(crate) fn kind(payload: &[u8]) -> Kind {
    let code = match payload {
        [b'{', ..] => payload.get(8).map_or(u8::MAX, |digit| digit.wrapping_sub(b'0')),
        [code, ..] => *code,
        [] => u8::MAX,
    };
    match code {
        1 => Kind::Ping,
        2 => Kind::Message,
        4 => Kind::Reply,
        _ => Kind::Other,
    }
}

/// The answer to a PING in a frame with this opcode.
pub(crate) fn pong(opcode: u8) -> Vec<u8> {
    from_client(opcode, if opcode == TEXT { br#"{"type":0,"content":"PONG"}"# } else { b"\0PONG" })
}

/// A client frame, masked with zeros, which the protocol permits.
pub(crate) fn from_client(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut head = Vec::with_capacity(payload.len() + 14);
    put(&mut head, opcode, payload);
    head[1] |= 0x80;
    let mask_at = head.len() - payload.len();
    head.splice(mask_at..mask_at, [0; 4]);
    head
}

/// The upgrade request. `Sec-WebSocket-Accept` of the response is not verified.
pub(crate) fn upgrade(host: &str, path: &str, subprotocol: Option<&str>) -> Vec<u8> {
    let mut head = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    );
    if let Some(name) = subprotocol {
        head.push_str("Sec-WebSocket-Protocol: ");
        head.push_str(name);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// The payload of a client frame.
#[cfg(test)]
pub(crate) fn unmasked(frame: &[u8]) -> Vec<u8> {
    let mut bare = frame.to_vec();
    bare[1] &= 0x7f;
    let head = match bare[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    assert_eq!(bare.drain(head..head + 4).as_slice(), [0; 4]);
    let frame = split(&bare).expect("one whole frame");
    assert_eq!(frame.len, bare.len());
    frame.payload.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_length_are_cut_where_they_end() {
        for len in [0, 125, 126, 65_535, 65_536] {
            let payload = vec![7; len];
            let mut bytes = Vec::new();
            put(&mut bytes, BINARY, &payload);
            let whole = bytes.len();
            bytes.push(9);
            let frame = split(&bytes).unwrap();
            assert_eq!((frame.opcode, frame.payload, frame.len), (BINARY, &payload[..], whole), "{len}");
            assert_eq!(split(&bytes[..whole - 1]), None, "{len}");
        }
    }

    #[test]
    fn client_frame_is_masked_and_keeps_its_payload() {
        for len in [0, 125, 126, 65_536] {
            let payload = vec![7; len];
            let frame = from_client(BINARY, &payload);
            assert!(frame[1] & 0x80 != 0 && unmasked(&frame) == payload, "{len}");
        }
    }

    #[test]
    fn first_bytes_of_a_frame_give_its_kind() {
        assert_eq!(kind(b"\x02abc"), Kind::Message);
        assert_eq!(kind(br#"{"type":1}"#), Kind::Ping);
        assert_eq!(kind(br#"{"type":4,"content":"{}"}"#), Kind::Reply);
        assert_eq!(kind(b""), Kind::Other);
    }
}

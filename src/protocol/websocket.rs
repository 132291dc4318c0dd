//! The sending half of WebSocket (RFC 6455): headers of unmasked frames, close and pong. tungstenite receives.
//!
//! Independent of sockets and of the content of frames.

use bytes::Bytes;

use crate::disconnect::Disconnect;

/// Encodes a close frame with code and reason of `why`.
#[must_use]
pub fn close(why: Disconnect) -> Bytes {
    close_frame(why.code, why.reason)
}

/// Like [`close`], with the address of the next node after the reason. The address is omitted if the reason would
/// exceed the 123 bytes of a control frame.
#[must_use]
pub fn close_towards(why: Disconnect, next: Option<&str>) -> Bytes {
    let words = next.map(|next| format!("{}; next {next}", why.reason));
    let words = words.as_deref().filter(|words| words.len() <= MAX_CONTROL - 2);
    close_frame(why.code, words.unwrap_or(why.reason))
}

fn close_frame(code: u16, reason: &str) -> Bytes {
    let mut payload = Vec::with_capacity(2 + reason.len());
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(reason.as_bytes());
    control(CLOSE, &payload)
}

/// Encodes the answer to a client's ping: its payload, truncated to 125 bytes.
#[must_use]
pub fn pong(payload: &[u8]) -> Bytes {
    control(PONG, &payload[..payload.len().min(MAX_CONTROL)])
}

fn control(opcode: u8, payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(2 + payload.len());
    put_header(&mut out, opcode, payload.len());
    out.extend_from_slice(payload);
    out.into()
}

/// Length of the header before a payload of this size.
pub(super) const fn header_length(payload: usize) -> usize {
    match payload {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

/// Writes the header of a whole, unmasked message.
pub(super) fn put_header(out: &mut Vec<u8>, opcode: u8, payload: usize) {
    out.push(FIN | opcode);
    if let Ok(short @ 0..=125) = u8::try_from(payload) {
        out.push(short);
    } else if let Ok(medium) = u16::try_from(payload) {
        out.push(126);
        out.extend_from_slice(&medium.to_be_bytes());
    } else {
        out.push(127);
        out.extend_from_slice(&u64::try_from(payload).expect("64 bits hold a length").to_be_bytes());
    }
}

/// Opcode of a UTF-8 text message.
pub(super) const TEXT: u8 = 1;
/// Opcode of a binary message.
pub(super) const BINARY: u8 = 2;

const CLOSE: u8 = 8;
const PONG: u8 = 10;
const FIN: u8 = 0x80;
const MAX_CONTROL: usize = 125;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_grows_with_the_length() {
        for (length, header) in [
            (0, &[0x82, 0][..]),
            (125, &[0x82, 125]),
            (126, &[0x82, 126, 0, 126]),
            (65_535, &[0x82, 126, 0xff, 0xff]),
            (65_536, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = Vec::new();
            put_header(&mut out, BINARY, length);
            assert_eq!(out, header);
            assert_eq!(header_length(length), header.len());
        }
    }

    #[test]
    fn control_frames_stay_within_125_bytes() {
        assert_eq!(&close(Disconnect::KICKED)[..], b"\x88\x08\x11\x97kicked");
        assert_eq!(&pong(b"ab")[..], b"\x8a\x02ab");
        assert_eq!(pong(&[0; 200]).len(), 127);
        assert_eq!(&close_towards(Disconnect::RESTART, Some("b:1"))[..], b"\x88\x13\x0f\xa3restart; next b:1");
        let named = |length| close_towards(Disconnect::RESTART, Some(&"b".repeat(length)));
        assert_eq!(named(123 - "restart; next ".len()).len(), 127);
        for next in [named(124 - "restart; next ".len()), close_towards(Disconnect::RESTART, None)] {
            assert_eq!(next, close(Disconnect::RESTART), "half an address would lead astray");
        }
        for (why, _) in Disconnect::ALL {
            assert_eq!(usize::from(close(*why)[1]), 2 + why.reason.len());
        }
    }
}

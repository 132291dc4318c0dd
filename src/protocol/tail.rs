//! A per-receiver tail of a shared frame: the position of the message in a stream.
//!
//! Reserved for history and not used yet. A frame consists of head, body and tail. All receivers of a form share the
//! body, so a position per receiver costs a head and a tail, never a second encoding. A frame without a position stays
//! the shared `Bytes` of [`encode`](super::encode); the fast path does not use this file.
//!
//! | form | head | body (shared) | tail |
//! |---|---|---|---|
//! | WebSocket protobuf | header for body + tail | type byte and fields | fields 15 (offset) and 16 (epoch) |
//! | TCP | type byte, length of body + tail | fields | the same |
//! | WebSocket JSON | header for body + tail | all but the closing braces | keys `offset`, `epoch`, the closing braces |

use bytes::Bytes;

use super::protobuf::{put_string, put_uint64};
use super::sink::{Escape, Sink, put_integer, put_text};
use super::{Form, FrameError, Framing, MAX_TCP_BODY, tcp, websocket};
use crate::message::Position;

/// A frame with a tail, to be written in order. The middle piece shares the bytes of the original.
pub type Tailed = [Bytes; 3];

/// Appends `position` to one MESSAGE frame that [`encode`](super::encode) made in `form`.
///
/// # Errors
/// On TCP the tail may not fit. The message is then sent without it.
pub fn with_tail(form: Form, frame: &Bytes, position: &Position) -> Result<Tailed, FrameError> {
    let (start, end) = body_range(form, frame);
    let body = frame.slice(start..end);
    let tail = tail(form, position, &body);
    let payload = body.len() + tail.len();
    let mut head = Vec::with_capacity(10);
    match form.framing {
        Framing::WebSocket if form.is_json() => websocket::put_header(&mut head, websocket::TEXT, payload),
        Framing::WebSocket => websocket::put_header(&mut head, websocket::BINARY, payload),
        Framing::Tcp => {
            let length = u16::try_from(payload);
            let length = length.map_err(|_| FrameError::TooLong { bytes: payload, limit: MAX_TCP_BODY })?;
            head.extend_from_slice(&tcp::header(frame[0], length));
        }
    }
    Ok([head.into(), body, tail])
}

/// Start and end of the shared piece of a frame.
fn body_range(form: Form, frame: &Bytes) -> (usize, usize) {
    match form.framing {
        Framing::Tcp => (tcp::HEADER, frame.len()),
        Framing::WebSocket => {
            let header = match frame[1] {
                126 => 4,
                127 => 10,
                _ => 2,
            };
            (header, if form.is_json() { frame.len() - BRACES.len() } else { frame.len() })
        }
    }
}

/// The tail for `body`.
fn tail(form: Form, position: &Position, body: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(64 + position.epoch.len());
    if !form.is_json() {
        put_uint64(&mut out, 15, position.offset);
        put_string(&mut out, 16, &position.epoch);
        return out.into();
    }
    // `content` is a string, so everything inside is escaped once more.
    let mut inside = Escape(&mut out);
    inside.put(if body.ends_with(b"{") { b"\"offset\":" } else { b",\"offset\":" });
    put_integer(&mut inside, i64::try_from(position.offset).unwrap_or(i64::MAX));
    inside.put(b",\"epoch\":");
    put_text(&mut inside, &position.epoch);
    out.extend_from_slice(BRACES);
    out.into()
}

/// Closes the object of the body, the string around it, and the object of the frame.
const BRACES: &[u8] = b"}\"}";

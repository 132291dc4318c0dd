//! Whole frames: head and body in one allocation, and [`Frames`], a run of frames shared by receivers.
//!
//! Independent of receivers. Tails that differ per receiver are in [`tail`](super::tail).

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use smallvec::SmallVec;

use super::sink::{Sink, measured};
use super::{Form, FrameError, Framing, MAX_TCP_BODY, ServerFrame, json, protobuf, tcp, websocket};
use crate::message::Message;

/// Messages for the same receivers, encoded at most once per form, each form in one contiguous buffer.
///
/// Shared between shards: the first one that needs a form encodes it.
#[derive(Debug, Clone)]
pub struct Frames {
    messages: SmallVec<[Arc<Message>; 1]>,
    forms: [OnceLock<Bytes>; Form::COUNT],
}

impl Frames {
    /// Creates the run of these messages, in order. Each must have passed [`check_size`](super::check_size), which
    /// ensures that every form can carry it. A message that a form cannot carry is omitted from that form.
    #[must_use]
    pub fn new(messages: SmallVec<[Arc<Message>; 1]>) -> Self {
        Self { messages, forms: Default::default() }
    }

    /// Number of frames per receiver.
    #[must_use]
    pub fn count(&self) -> usize {
        self.messages.len()
    }

    /// The messages, in order.
    #[must_use]
    pub fn messages(&self) -> &[Arc<Message>] {
        &self.messages
    }

    /// The run of frames in `form`.
    pub fn bytes(&self, form: Form) -> &Bytes {
        self.forms[form.index()].get_or_init(|| run(form, &self.messages))
    }
}

/// Measures first, so that the run takes exactly one allocation.
fn run(form: Form, messages: &[Arc<Message>]) -> Bytes {
    let measured: SmallVec<[_; 16]> =
        messages.iter().map(|message| measure(form, ServerFrame::Message(message))).collect();
    let mut out = Vec::with_capacity(measured.iter().flatten().map(|measured| measured.total).sum());
    for (message, measured) in messages.iter().zip(measured) {
        debug_assert!(measured.is_ok(), "the size of every message was checked when it was published");
        if let Ok(measured) = measured {
            write(form, ServerFrame::Message(message), measured, &mut out);
        }
    }
    out.into()
}

/// Sizes of a frame in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    /// The length given in the head.
    payload: usize,
    /// Total of head and payload.
    pub(super) total: usize,
}

/// Returns the size of the encoded frame.
///
/// # Errors
/// [`FrameError::TooLong`] for a TCP body over [`MAX_TCP_BODY`].
pub(super) fn measure(form: Form, frame: ServerFrame<'_>) -> Result<Measured, FrameError> {
    let payload = measured(|count| put_payload(count, form, frame));
    match form.framing {
        Framing::WebSocket => Ok(Measured { payload, total: websocket::header_length(payload) + payload }),
        Framing::Tcp if payload > MAX_TCP_BODY => Err(FrameError::TooLong { bytes: payload, limit: MAX_TCP_BODY }),
        Framing::Tcp => Ok(Measured { payload, total: tcp::HEADER + payload }),
    }
}

/// Appends the frame.
pub(super) fn write(form: Form, frame: ServerFrame<'_>, measured: Measured, out: &mut Vec<u8>) {
    let end = out.len() + measured.total;
    match form.framing {
        Framing::Tcp => {
            let length = u16::try_from(measured.payload).expect("measured");
            out.extend_from_slice(&tcp::header(frame.type_code(), length));
        }
        Framing::WebSocket if form.is_json() => websocket::put_header(out, websocket::TEXT, measured.payload),
        Framing::WebSocket => websocket::put_header(out, websocket::BINARY, measured.payload),
    }
    put_payload(out, form, frame);
    debug_assert_eq!(out.len(), end, "what was measured is what was written");
}

/// The part that the length of the framing counts: on TCP the body, in a WebSocket message everything.
fn put_payload(sink: &mut impl Sink, form: Form, frame: ServerFrame<'_>) {
    if form.is_json() {
        return json::put_frame(sink, form.dialect, frame);
    }
    if form.framing == Framing::WebSocket {
        sink.put(&[frame.type_code()]);
    }
    match frame {
        ServerFrame::Ping => sink.put(b"PING"),
        ServerFrame::Message(message) => protobuf::put_message(sink, form.dialect, message),
        ServerFrame::Reply(reply) => protobuf::put_reply(sink, reply),
    }
}

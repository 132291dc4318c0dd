//! Whole frames: head and body in one allocation, and [`Frames`], a run of frames shared by receivers.
//!
//! Independent of receivers: all of them get the same bytes.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use smallvec::SmallVec;

use super::sink::{Sink, measured};
use super::{Form, FrameError, FrameTail, Framing, MAX_TCP_BODY, ServerFrame, json, protobuf, tcp, websocket};
use crate::message::{Epoch, Message, Position, StreamName};

/// Messages for the same receivers, encoded at most once per form, each form in one contiguous buffer.
///
/// Shared between shards: the first one that needs a form encodes it.
#[derive(Debug, Clone)]
pub struct Frames {
    messages: SmallVec<[Arc<Message>; 1]>,
    stream: Option<StreamName>,
    /// Epoch and offset of the first message. The others have the next offsets.
    first: Option<(Epoch, u64)>,
    forms: [OnceLock<Bytes>; Form::COUNT],
}

impl Frames {
    /// Creates the run of these messages, in order. Each must have passed [`check_size`](super::check_size), which
    /// ensures that every form can carry it. A message that a form cannot carry is omitted from that form.
    #[must_use]
    pub fn new(messages: SmallVec<[Arc<Message>; 1]>) -> Self {
        Self::of_stream(messages, None, None)
    }

    /// Like [`Frames::new`], for messages of a stream. `first` is the position of the first message; the others have
    /// the next offsets. Without it the messages are not kept. Each frame then ends with a [`FrameTail`]. A tail that
    /// does not fit into a TCP frame is omitted from it.
    #[must_use]
    pub fn of_stream(
        messages: SmallVec<[Arc<Message>; 1]>,
        stream: Option<&StreamName>,
        first: Option<Position>,
    ) -> Self {
        let first = first.map(|first| (first.epoch, first.offset));
        Self { messages, stream: stream.cloned(), first, forms: Default::default() }
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
        self.forms[form.index()]
            .get_or_init(|| run(form, self.messages.len(), |at| (&*self.messages[at], self.tail(at))))
    }

    /// The tail of the message at this index.
    fn tail(&self, at: usize) -> FrameTail<'_> {
        let position = self.first.map(|(epoch, first)| (epoch, first + at as u64));
        FrameTail { stream: self.stream.as_ref(), position }
    }
}

/// Encodes kept messages of a stream for a replay, in order. Each message comes with its offset.
#[must_use]
pub fn kept_frames(form: Form, messages: &[(u64, &Message)], stream: &StreamName, epoch: Epoch) -> Bytes {
    let tail = |offset| FrameTail { stream: Some(stream), position: Some((epoch, offset)) };
    run(form, messages.len(), |at| (messages[at].1, tail(messages[at].0)))
}

/// Encodes `count` messages; `get` returns each with its tail. Measures first, so that the run takes exactly one
/// allocation.
fn run<'a>(form: Form, count: usize, get: impl Fn(usize) -> (&'a Message, FrameTail<'a>)) -> Bytes {
    let mut total = 0;
    let mut frames: SmallVec<[_; 16]> = SmallVec::with_capacity(count);
    for at in 0..count {
        let (message, tail) = get(at);
        if let Some(measured) = measure_message(form, message, tail) {
            total += measured.1.total;
            frames.push((at, measured));
        }
    }
    let mut out = Vec::with_capacity(total);
    for (at, (has_tail, measured)) in frames {
        let (message, tail) = get(at);
        write(form, frame_of(message, tail, has_tail), measured, &mut out);
    }
    out.into()
}

/// Returns the size of a message's frame, and true if it has its tail. `None` if the form cannot carry the message.
fn measure_message(form: Form, message: &Message, tail: FrameTail<'_>) -> Option<(bool, Measured)> {
    let has_tail = !tail.is_empty();
    let measured = measure(form, frame_of(message, tail, has_tail));
    if has_tail && measured.is_err() {
        return Some((false, measure(form, ServerFrame::Message(message)).ok()?));
    }
    debug_assert!(measured.is_ok(), "the size of every message was checked when it was published");
    Some((has_tail, measured.ok()?))
}

fn frame_of<'a>(message: &'a Message, tail: FrameTail<'a>, has_tail: bool) -> ServerFrame<'a> {
    if has_tail { ServerFrame::StreamMessage(message, tail) } else { ServerFrame::Message(message) }
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
        ServerFrame::StreamMessage(message, tail) => {
            protobuf::put_message(sink, form.dialect, message);
            protobuf::put_tail(sink, tail);
        }
        ServerFrame::Reply(reply) => protobuf::put_reply(sink, reply),
    }
}

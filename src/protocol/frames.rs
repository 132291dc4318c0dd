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
            .get_or_init(|| run(form, (0..).zip(&self.messages).map(|(at, message)| (&**message, self.tail(at)))))
    }

    /// The tail of the message at this index.
    fn tail(&self, at: u64) -> FrameTail<'_> {
        FrameTail { stream: self.stream.as_ref(), position: self.first.map(|(epoch, first)| (epoch, first + at)) }
    }
}

/// Encodes kept messages of a stream for a replay, in order. Each message comes with its offset.
#[must_use]
pub fn kept_frames(form: Form, messages: &[(u64, &Message)], stream: &StreamName, epoch: Epoch) -> Bytes {
    let tail = |offset| FrameTail { stream: Some(stream), position: Some((epoch, offset)) };
    run(form, messages.iter().map(|&(offset, message)| (message, tail(offset))))
}

/// Measures first, so that the run takes exactly one allocation.
fn run<'a>(form: Form, messages: impl Iterator<Item = (&'a Message, FrameTail<'a>)>) -> Bytes {
    let measured: SmallVec<[_; 8]> =
        messages.filter_map(|(message, tail)| measure_message(form, message, tail)).collect();
    let mut out = Vec::with_capacity(measured.iter().map(|(_, measured)| measured.total).sum());
    for (frame, measured) in measured {
        write(form, frame, measured, &mut out);
    }
    out.into()
}

/// Returns the frame of a message with its size. `None` if the form cannot carry the message.
fn measure_message<'a>(form: Form, message: &'a Message, tail: FrameTail<'a>) -> Option<(ServerFrame<'a>, Measured)> {
    let whole = (!tail.is_empty()).then_some(ServerFrame::StreamMessage(message, tail));
    let mut choices = whole.into_iter().chain([ServerFrame::Message(message)]);
    let found = choices.find_map(|frame| Some((frame, measure(form, frame).ok()?)));
    debug_assert!(found.is_some(), "the size of every message was checked when it was published");
    found
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

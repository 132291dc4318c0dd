//! The part of Redis' protocol (RESP 2) that publishing and subscribing need. Received payloads are not copied.
//!
//! One round trip may carry thousands of commands, and reads may end anywhere in a frame. Independent of channels and
//! records.

use std::io;
use std::ops::Range;
use std::pin::Pin;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::client::ByteStream;
use super::server::ConnectionToken;

/// Buffer space reserved for each read.
const READ: usize = 64 << 10;
/// Bytes of a line break.
const BREAK: usize = 2;
/// Maximum length of a line (a length, an integer, an error) and of one answer.
const MAX_LINE: usize = 4 << 10;
const MAX_FRAME: usize = 128 << 20;

/// Frame from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// `+OK`
    Simple(Bytes),
    /// `-ERR …`
    Error(String),
    /// `:1`
    Integer(i64),
    /// A byte string, or nil.
    Bulk(Option<Bytes>),
    /// Several frames, in order.
    Array(Vec<Frame>),
    /// Payload published on a subscribed channel.
    Message(Bytes),
}

/// Reason why a connection cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("closed by the server")]
    Closed,
    #[error("no answer in {0:?}")]
    TimedOut(std::time::Duration),
    /// Another connection has proved the server unfit.
    #[error("all connections to the server were closed")]
    Ended,
    #[error("{0}")]
    Refused(String),
    #[error("expected an answer in Redis' protocol, got {0}")]
    Malformed(String),
}

/// Both directions of a connection.
pub(super) struct Wire {
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
    pub(super) token: ConnectionToken,
}

/// Receiving half.
pub(super) struct Incoming {
    stream: ReadHalf<Pin<Box<dyn ByteStream>>>,
    buffer: BytesMut,
}

/// Sending half.
pub(super) struct Outgoing {
    stream: WriteHalf<Pin<Box<dyn ByteStream>>>,
    /// Bytes to be written.
    buffer: BytesMut,
    /// True while TLS may still hold written bytes.
    unflushed: bool,
}

impl Wire {
    pub(super) fn new(stream: Pin<Box<dyn ByteStream>>, token: ConnectionToken) -> Self {
        let (read, write) = tokio::io::split(stream);
        Self {
            incoming: Incoming { stream: read, buffer: BytesMut::new() },
            outgoing: Outgoing { stream: write, buffer: BytesMut::new(), unflushed: false },
            token,
        }
    }

    /// Sends one command and waits for its answer. No other command may be in flight.
    pub(super) async fn request(&mut self, arguments: &[&[u8]]) -> Result<Frame, WireError> {
        let mut command = Vec::new();
        put_command(&mut command, arguments);
        self.outgoing.put(&command);
        while self.outgoing.has_pending() {
            self.outgoing.write().await?;
        }
        loop {
            match self.incoming.next()? {
                Some(Frame::Error(why)) => {
                    self.token.end_all_if_fatal(&why);
                    return Err(WireError::Refused(why));
                }
                Some(frame) => return Ok(frame),
                None => self.incoming.read().await?,
            }
        }
    }
}

impl Incoming {
    /// Waits for more bytes. Cancel safe.
    pub(super) async fn read(&mut self) -> Result<(), WireError> {
        self.buffer.reserve(READ);
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(WireError::Closed),
            _ => Ok(()),
        }
    }

    /// Returns the next complete frame.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, WireError> {
        let Some(end) = end_of(&self.buffer, 0, 0)? else { return Ok(None) };
        // Fast path for answers to PUBLISH, which come by the thousands and need no buffer.
        if self.buffer[0] == b':' {
            let number = integer(&self.buffer[1..end - 2])?;
            self.buffer.advance(end);
            return Ok(Some(Frame::Integer(number)));
        }
        // Fast path for published messages, as frequent: only the payload is extracted.
        if let Some(payload) = payload_of(&self.buffer[..end]) {
            self.buffer.advance(payload.start);
            let message = self.buffer.split_to(payload.len()).freeze();
            self.buffer.advance(end - payload.end);
            return Ok(Some(Frame::Message(message)));
        }
        let whole = self.buffer.split_to(end).freeze();
        build(&whole, &mut 0).map(Some)
    }
}

impl Outgoing {
    /// Queues commands to be written.
    pub(super) fn put(&mut self, commands: &[u8]) {
        self.buffer.extend_from_slice(commands);
    }

    /// True if bytes wait to be written.
    pub(super) fn has_pending(&self) -> bool {
        self.unflushed || !self.buffer.is_empty()
    }

    /// Writes some of the queued bytes. Cancel safe.
    pub(super) async fn write(&mut self) -> Result<(), WireError> {
        if !self.buffer.is_empty() {
            self.unflushed = true;
            self.stream.write_buf(&mut self.buffer).await?;
        }
        if self.buffer.is_empty() {
            self.stream.flush().await?;
            self.unflushed = false;
        }
        Ok(())
    }
}

/// Appends a command with these arguments.
pub(super) fn put_command(out: &mut Vec<u8>, arguments: &[&[u8]]) {
    put_length(out, b'*', arguments.len());
    arguments.iter().for_each(|argument| put_argument(out, &[argument]));
}

/// Appends one argument of a command, which is given in pieces.
pub(super) fn put_argument(out: &mut Vec<u8>, pieces: &[&[u8]]) {
    put_length(out, b'$', pieces.iter().map(|piece| piece.len()).sum());
    pieces.iter().for_each(|piece| out.extend_from_slice(piece));
    out.extend_from_slice(b"\r\n");
}

/// Appends the line with the number of arguments or bytes that follow.
pub(super) fn put_length(out: &mut Vec<u8>, mark: u8, length: usize) {
    out.push(mark);
    let start = out.len();
    let mut rest = length;
    loop {
        out.push(b'0' + u8::try_from(rest % 10).expect("a digit"));
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out[start..].reverse();
    out.extend_from_slice(b"\r\n");
}

/// Returns the end of the frame at `at`, if the frame is complete.
fn end_of(buffer: &[u8], at: usize, depth: usize) -> Result<Option<usize>, WireError> {
    let Some(end) = line_end(buffer, at)? else { return Ok(None) };
    let number = || integer(&buffer[at + 1..end - 2]);
    let length = |number: i64| match usize::try_from(number) {
        Ok(length) if length <= MAX_FRAME => Ok(Some(length)),
        _ if number == -1 => Ok(None),
        _ => Err(WireError::Malformed(format!("a length of {number}"))),
    };
    match buffer[at] {
        b'+' | b'-' | b':' => Ok(Some(end)),
        b'$' => {
            Ok(length(number()?)?.map_or(Some(end), |length| Some(end + length + 2).filter(|e| *e <= buffer.len())))
        }
        b'*' if depth < 4 => {
            let mut at = end;
            for _ in 0..length(number()?)?.unwrap_or(0) {
                let Some(end) = end_of(buffer, at, depth + 1)? else { return Ok(None) };
                at = end;
            }
            Ok(Some(at))
        }
        other => Err(WireError::Malformed(format!("a frame that begins with {other:#04x}"))),
    }
}

/// Returns the range of the payload if the frame is a published message.
fn payload_of(frame: &[u8]) -> Option<Range<usize>> {
    const HEAD: &[u8] = b"*3\r\n$7\r\nmessage\r\n";
    if !frame.starts_with(HEAD) {
        return None;
    }
    let at = end_of(frame, HEAD.len(), 1).ok()??;
    let start = line_end(frame, at).ok()??;
    // Nil has no payload and no second line break.
    let is_text = frame[at] == b'$' && start + BREAK <= frame.len();
    is_text.then(|| start..frame.len() - BREAK)
}

/// Returns the position after the line that begins at `at`.
fn line_end(buffer: &[u8], at: usize) -> Result<Option<usize>, WireError> {
    let line = &buffer[at.min(buffer.len())..];
    match line.iter().take(MAX_LINE).position(|&byte| byte == b'\n') {
        Some(break_at) if break_at >= 2 && line[break_at - 1] == b'\r' => Ok(Some(at + break_at + 1)),
        None if line.len() < MAX_LINE => Ok(None),
        _ => Err(WireError::Malformed("a line without a line break".to_owned())),
    }
}

fn integer(digits: &[u8]) -> Result<i64, WireError> {
    // Nearly every answer to PUBLISH has one digit.
    if let [digit @ b'0'..=b'9'] = digits {
        return Ok(i64::from(digit - b'0'));
    }
    let parsed = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| WireError::Malformed(format!("the integer {:?}", String::from_utf8_lossy(digits))))
}

/// Builds the frame at `at`; `whole` must contain it completely.
fn build(whole: &Bytes, at: &mut usize) -> Result<Frame, WireError> {
    let start = *at;
    let end = line_end(whole, start)?.ok_or(WireError::Closed)?;
    let line = start + 1..end - 2;
    *at = end;
    Ok(match whole[start] {
        b'+' => Frame::Simple(whole.slice(line)),
        b'-' => Frame::Error(String::from_utf8_lossy(&whole[line]).into_owned()),
        b':' => Frame::Integer(integer(&whole[line])?),
        b'$' => match usize::try_from(integer(&whole[line])?) {
            Ok(length) => {
                *at = end + length + 2;
                Frame::Bulk(Some(whole.slice(end..end + length)))
            }
            Err(_) => Frame::Bulk(None),
        },
        _ => {
            let count = usize::try_from(integer(&whole[line])?).unwrap_or(0);
            Frame::Array((0..count).map(|_| build(whole, at)).collect::<Result<_, _>>()?)
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::super::server::Server;
    use super::*;

    const TALK: &[u8] =
        b"+OK\r\n:12\r\n-ERR no\r\n$-1\r\n*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$4\r\na\r\nb\r\n:0\r\n*-1\r\n\
          *3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$0\r\n\r\n*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$-1\r\n";

    fn frames() -> Vec<Frame> {
        let bulk = |text: &'static str| Frame::Bulk(Some(Bytes::from_static(text.as_bytes())));
        vec![
            Frame::Simple("OK".into()),
            Frame::Integer(12),
            Frame::Error("ERR no".to_owned()),
            Frame::Bulk(None),
            Frame::Message("a\r\nb".into()),
            Frame::Integer(0),
            Frame::Array(Vec::new()),
            Frame::Array(vec![bulk("subscribe"), bulk("c"), Frame::Integer(1)]),
            Frame::Message(Bytes::new()),
            Frame::Array(vec![bulk("message"), bulk("c"), Frame::Bulk(None)]),
        ]
    }

    async fn heard(bytes: Vec<u8>, chunk: usize) -> Result<Vec<Frame>, WireError> {
        let (client, mut server) = tokio::io::duplex(1 << 16);
        let token = Arc::new(Server::new("h:1".to_owned())).register().unwrap();
        let mut wire = Wire::new(Box::pin(client), token);
        let told = tokio::spawn(async move {
            for chunk in bytes.chunks(chunk) {
                server.write_all(chunk).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let mut heard = Vec::new();
        loop {
            match wire.incoming.next() {
                Ok(Some(frame)) => heard.push(frame),
                Ok(None) => match wire.incoming.read().await {
                    Ok(()) => {}
                    Err(WireError::Closed) => break,
                    Err(error) => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
        told.await.unwrap();
        Ok(heard)
    }

    #[tokio::test]
    async fn frames_come_whole_however_they_are_cut() {
        for chunk in 1..TALK.len() {
            assert_eq!(heard(TALK.to_vec(), chunk).await.unwrap(), frames(), "in chunks of {chunk}");
        }
    }

    #[tokio::test]
    async fn what_is_no_answer_is_an_error() {
        for bytes in
            [&b"HTTP/1.1 400\r\n"[..], b"$-7\r\n", b":1x\r\n", b"$99999999999\r\n", b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n"]
        {
            assert!(matches!(heard(bytes.to_vec(), 64).await, Err(WireError::Malformed(_))), "{bytes:?}");
        }
        assert!(matches!(heard(vec![b'+'; MAX_LINE], 64).await, Err(WireError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn garbage_is_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..99)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(end)) = end_of(&buffer, 0, 0) {
                let whole = buffer.split_to(end).freeze();
                let _ = payload_of(&whole).map(|payload| whole.slice(payload));
                let _ = build(&whole, &mut 0);
            }
        }
    }

    #[test]
    fn commands_are_lengths_and_words() {
        let mut out = Vec::new();
        put_command(&mut out, &[b"PUBLISH", b"", &[b'x'; 10]]);
        assert_eq!(out, b"*3\r\n$7\r\nPUBLISH\r\n$0\r\n\r\n$10\r\nxxxxxxxxxx\r\n");
    }
}

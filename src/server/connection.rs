//! The driver of one connection: passes input to the session and lets the node perform the session's actions.
//!
//! One small read-only task per connection; large and rare state is boxed. The shard does all writing.

mod perform;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::io::IoSlice;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::time::{Sleep, sleep};

use super::peers::ConnectionPermit;
use super::socket::MaybeTlsStream;
use super::{tcp, ws};
use crate::claim::{Claim, Refusal};
use crate::clock;
use crate::disconnect::Disconnect;
use crate::node::{Connection, Replay, Socket, Transport};
use crate::protocol::{self, ClientFrame, Coding, Form, Framing};
use crate::session::{Input, Session};
use crate::telemetry::{may_log, names, without_value};

/// Data of a connection at the end of its handshake.
pub(super) struct ConnectionStart {
    /// Index of the listener in the configuration.
    pub(super) at: usize,
    /// Details for the auth plugins.
    pub(super) transport: Transport,
    /// First input of the session; taken when it is fed.
    pub(super) first_input: Option<FirstInput>,
    /// The form of the connection. If it `sniffs`, this is the form to use while the client has sent nothing.
    pub(super) form: Form,
    /// True if the first frame reveals the coding. Nothing is sent before that frame.
    pub(super) sniffs: bool,
}

impl ConnectionStart {
    /// The client's address.
    fn ip(&self) -> Option<IpAddr> {
        self.transport.remote.parse().ok()
    }
}

/// The first step of a connection.
pub(super) enum FirstInput {
    /// The client presents a token and is bound at once.
    Token(Box<Claim>),
    /// The client will bind with a frame.
    Unbound,
    /// The client is refused in band.
    Refused(Disconnect, Refusal),
}

/// Input from a reader.
pub(super) enum ReadEvent {
    /// A whole message with its coding.
    Message(Coding, Bytes),
    /// A WebSocket ping, with the frame that answers it.
    Ping(Bytes),
    /// Traffic that only proves liveness.
    Alive,
    /// The client closes the connection.
    Close(Disconnect),
    /// The client sent invalid data, or stopped within a message.
    Invalid(Disconnect),
    /// The socket is closed.
    Disconnected,
}

/// Attaches the connection to the node and spawns the task that reads it until it ends. `read_ahead` are bytes received
/// after the handshake.
pub(super) async fn start(
    permit: ConnectionPermit,
    start: Box<ConnectionStart>,
    stream: MaybeTlsStream,
    read_ahead: Bytes,
) {
    let stream = Arc::new(stream);
    let form = (!start.sniffs).then_some(start.form);
    let socket = Arc::clone(&stream) as Arc<dyn Socket>;
    let devices = permit.gateway().config.load().listeners[start.at].devices;
    let connection = match permit.gateway().node.attach(socket, form, devices).await {
        Ok(connection) => connection,
        Err(why) => {
            metrics::counter!(names::REFUSED, "reason" => why.reason).increment(1);
            let words = permit.gateway().node.refusal(start.form, why, start.ip());
            return refuse(&stream, words).await;
        }
    };
    let (cid, listener) = (connection.id().as_u64(), start.transport.listener);
    metrics::counter!(names::CONNECTED, "listener" => listener).increment(1);
    tracing::debug!(cid, listener, remote = start.transport.remote, "connected");
    tokio::spawn(run(Box::new(Driver::new(permit, connection, start, stream, &read_ahead))));
}

/// The driver is boxed, because the future would otherwise contain it twice.
async fn run(mut driver: Box<Driver>) {
    let ended = AssertUnwindSafe(driver.drive()).catch_unwind().await;
    // The hub must be told the end in every case, even after a panic.
    let Driver { permit, connection, .. } = *driver;
    let cid = connection.id().as_u64();
    if ended.is_err() {
        tracing::error!(cid, "connection task panicked");
    }
    Box::pin(permit.gateway().node.detach(&connection)).await;
    tracing::debug!(cid, closed = ?connection.closed(), "disconnected");
}

/// Turns the client away when the node refuses the connection. No queue exists yet, but a fresh socket accepts a few
/// bytes.
async fn refuse(stream: &MaybeTlsStream, words: Option<Bytes>) {
    if let Some(words) = words {
        let _ = stream.try_write(&[IoSlice::new(&words)]);
    }
    stream.shutdown(false);
    stream.linger().await;
}

struct Driver {
    permit: ConnectionPermit,
    connection: Connection,
    start: Box<ConnectionStart>,
    session: Session,
    reader: Reader,
    /// Deadline of the first frame or of the current message.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Number of the message that the deadline is for.
    deadline_message: u32,
    /// Replay that begins after the current answers. Boxed, since most connections never have one.
    replay: Option<Box<Replay>>,
}

#[expect(clippy::large_enum_variant, reason = "nearly every connection is a WebSocket")]
enum Reader {
    Ws(ws::Reader),
    Tcp(tcp::Reader),
}

impl Driver {
    fn new(
        permit: ConnectionPermit,
        connection: Connection,
        start: Box<ConnectionStart>,
        stream: Arc<MaybeTlsStream>,
        read_ahead: &[u8],
    ) -> Self {
        let max = permit.gateway().config.load().limits.frame_bytes;
        let reader = match start.form.framing {
            Framing::WebSocket => Reader::Ws(ws::Reader::new(stream, read_ahead, max)),
            Framing::Tcp => Reader::Tcp(tcp::Reader::new(stream, max)),
        };
        let session = Session::new(clock::now_millis());
        Self { permit, connection, start, session, reader, deadline: None, deadline_message: 0, replay: None }
    }

    async fn drive(&mut self) {
        if self.start.sniffs {
            self.deadline = Some(timer(self.permit.gateway().config.load().limits.first_frame));
        } else {
            self.open().await;
        }
        loop {
            let fault = match self.next_event().await {
                ReadEvent::Message(coding, payload) => self.message(coding, payload).await,
                ReadEvent::Ping(pong) => self.ping(pong).await,
                ReadEvent::Alive => {
                    self.connection.reset_missed_pings();
                    None
                }
                ReadEvent::Invalid(why) => Some(why),
                // The client sends nothing more, so there is no need to wait for the end of its socket.
                ReadEvent::Close(why) => return self.end(why).await,
                ReadEvent::Disconnected => return,
            };
            if let Some(why) = fault {
                self.end(why).await;
                return self.reader.stream().discard().await;
            }
            tokio::task::coop::consume_budget().await;
        }
    }

    async fn end(&mut self, why: Disconnect) {
        // The form may still be open. The close frame needs one.
        self.set_form(self.start.form);
        Box::pin(self.connection.close(why)).await;
    }

    async fn next_event(&mut self) -> ReadEvent {
        let event = poll_fn(|cx| self.poll_event(cx)).await;
        if matches!(event, ReadEvent::Message(..)) {
            self.deadline = None;
        }
        event
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<ReadEvent> {
        if let Poll::Ready(event) = self.reader.poll(cx) {
            return Poll::Ready(event);
        }
        // The deadline of the first frame stays fixed.
        if !self.start.sniffs {
            self.update_deadline();
        }
        match &mut self.deadline {
            Some(deadline) => deadline.as_mut().poll(cx).map(|()| ReadEvent::Invalid(Disconnect::TOO_SLOW_TO_SPEAK)),
            None => Poll::Pending,
        }
    }

    /// Sets the deadline of the current message. A fragmented control frame counts as a message; a complete one ends
    /// its deadline.
    fn update_deadline(&mut self) {
        let message_number = self.reader.message_number();
        if !self.reader.is_mid_message() {
            self.deadline = None;
        } else if self.deadline.is_none() || self.deadline_message != message_number {
            self.deadline = Some(timer(self.permit.gateway().config.load().limits.message_timeout));
            self.deadline_message = message_number;
        }
    }

    /// Processes one message. Returns the reason if the connection must end.
    async fn message(&mut self, coding: Coding, payload: Bytes) -> Option<Disconnect> {
        self.connection.reset_missed_pings();
        if self.connection.closed().is_some() {
            return None;
        }
        if self.start.sniffs {
            self.set_form(Form { coding, ..self.start.form });
            self.open().await;
        }
        let form = self.connection.form().unwrap_or(self.start.form);
        if form.coding != coding {
            if self.may_log() {
                tracing::debug!(cid = self.connection.id().as_u64(), %form, "frame has the wrong coding");
            }
            return Some(Disconnect::PROTOCOL_ERROR);
        }
        match protocol::decode(coding, &payload) {
            Ok(ClientFrame::Pong) => {
                count_frame("pong");
                None
            }
            Ok(ClientFrame::Sent(body)) => {
                count_frame("sent");
                drop(payload);
                self.feed(Input::Sent(body)).await;
                None
            }
            Err(error) => {
                count_frame("invalid");
                if self.may_log() {
                    tracing::debug!(
                        cid = self.connection.id().as_u64(),
                        error = without_value(&error),
                        "invalid frame"
                    );
                }
                Some(tcp::fault(&error))
            }
        }
    }

    /// True if one more mistake of this client's address may be logged.
    fn may_log(&self) -> bool {
        self.start.ip().is_none_or(may_log)
    }

    async fn ping(&mut self, pong: Bytes) -> Option<Disconnect> {
        self.connection.reset_missed_pings();
        // Allowed before the first frame reveals the coding: a pong is the same in every dialect.
        Box::pin(self.connection.send(pong)).await;
        None
    }

    /// Feeds the opening to the session.
    async fn open(&mut self) {
        match self.start.first_input.take() {
            Some(FirstInput::Token(claim)) => self.feed(Input::Opened(Some(claim))).await,
            Some(FirstInput::Refused(why, refusal)) => self.feed(Input::Refused(why, refusal)).await,
            Some(FirstInput::Unbound) | None => {}
        }
    }

    fn set_form(&mut self, form: Form) {
        if std::mem::take(&mut self.start.sniffs) {
            self.start.form = form;
            self.connection.set_form(form);
        }
    }
}

impl Reader {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ReadEvent> {
        match self {
            Self::Ws(reader) => reader.poll(cx),
            Self::Tcp(reader) => reader.poll(cx),
        }
    }

    fn is_mid_message(&self) -> bool {
        match self {
            Self::Ws(reader) => reader.is_mid_message(),
            Self::Tcp(reader) => reader.is_mid_message(),
        }
    }

    /// Number of the newest message. Always 0 over TCP, where each received message clears its deadline.
    fn message_number(&self) -> u32 {
        match self {
            Self::Ws(reader) => reader.message_number(),
            Self::Tcp(_) => 0,
        }
    }

    fn stream(&self) -> &Arc<MaybeTlsStream> {
        match self {
            Self::Ws(reader) => reader.stream(),
            Self::Tcp(reader) => reader.stream(),
        }
    }
}

fn count_frame(kind: &'static str) {
    metrics::counter!(names::FRAMES_RECEIVED, "kind" => kind).increment(1);
}

fn timer(after: Duration) -> Pin<Box<Sleep>> {
    Box::pin(sleep(after))
}

//! A test client over WebSocket or TCP in every dialect. It shares no code with the node and follows the documents.
//!
//! The client reads strictly and waits at most [`PATIENCE`] for anything: a test fails with a message and never hangs.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, Request};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::wire::{Form, Frame, read_binary, read_text, sent_binary, sent_text};

/// Longest wait for one event. No event takes this long on any test machine, so an event that is still missing will not
/// come.
pub const PATIENCE: Duration = Duration::from_secs(100);

/// One event on a connection.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    Frame(Frame),
    /// Close code and reason; `None` if the transport has no close frame or the peer sent none.
    Closed(Option<(u16, String)>),
}

/// A socket, with or without TLS.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

pub type Pipe = Box<dyn Duplex>;

enum Link {
    WebSocket(Box<WebSocketStream<Pipe>>),
    Tcp(Pipe),
}

pub struct Client {
    pub form: Form,
    /// The subprotocol that the node chose.
    pub subprotocol: Option<String>,
    link: Link,
    /// Frames that arrived during a wait for another frame.
    kept: VecDeque<Frame>,
    /// True if the client answers PINGs.
    pub polite: bool,
    /// The last binary payload as received; on TCP without the length field.
    pub payload: Vec<u8>,
}

/// Parameters of a WebSocket handshake.
#[derive(Default, Clone)]
pub struct Dial {
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub subprotocols: Vec<String>,
}

impl Dial {
    pub fn path(path: impl Into<String>) -> Self {
        Self { path: path.into(), ..Self::default() }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn subprotocol(mut self, name: impl Into<String>) -> Self {
        self.subprotocols.push(name.into());
        self
    }
}

/// A message without its position, which differs from message to message.
pub fn without_position(mut message: Value) -> Value {
    for key in ["offset", "epoch"] {
        message.as_object_mut().expect("a message is an object").remove(key);
    }
    message
}

/// Waits at most [`PATIENCE`] for the future; the failure message names it.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} for {what}, which did not happen"),
    }
}

impl Client {
    /// Opens a WebSocket. The error is the HTTP status and body of a refusal.
    pub async fn dial(address: SocketAddr, form: Form, dial: Dial) -> Result<Self, (u16, String)> {
        let stream = within("the TCP connection", TcpStream::connect(address)).await.unwrap();
        Self::dial_over(Box::new(stream), address, form, dial).await
    }

    /// Opens a WebSocket over a socket that is already connected.
    pub async fn dial_over(pipe: Pipe, address: SocketAddr, form: Form, dial: Dial) -> Result<Self, (u16, String)> {
        let mut request: Request<()> = format!("ws://{address}{}", dial.path).into_client_request().unwrap();
        for (name, value) in dial.headers {
            let name: HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, HeaderValue::from_str(&value).unwrap());
        }
        if !dial.subprotocols.is_empty() {
            let offered = HeaderValue::from_str(&dial.subprotocols.join(", ")).unwrap();
            request.headers_mut().insert("sec-websocket-protocol", offered);
        }
        match within("the upgrade", tokio_tungstenite::client_async(request, pipe)).await {
            Ok((socket, response)) => {
                let subprotocol = response.headers().get("sec-websocket-protocol");
                let subprotocol = subprotocol.map(|v| v.to_str().unwrap().to_owned());
                Ok(Self::new(form, subprotocol, Link::WebSocket(Box::new(socket))))
            }
            Err(Error::Http(response)) => {
                let body = response.body().as_deref().unwrap_or_default();
                Err((response.status().as_u16(), String::from_utf8_lossy(body).into_owned()))
            }
            Err(error) => panic!("the upgrade at {address} failed: {error}"),
        }
    }

    /// Creates a client that uses CIM's TCP framing.
    pub fn tcp_over(pipe: Pipe) -> Self {
        Self::new(Form::CimTcp, None, Link::Tcp(pipe))
    }

    fn new(form: Form, subprotocol: Option<String>, link: Link) -> Self {
        Self { form, subprotocol, link, kept: VecDeque::new(), polite: true, payload: Vec::new() }
    }

    /// Returns the next frame or the end, exactly as the socket delivers it.
    async fn read(&mut self) -> Seen {
        match &mut self.link {
            Link::WebSocket(socket) => loop {
                match socket.next().await {
                    Some(Ok(Message::Binary(payload))) => {
                        assert!(!self.form.is_json(), "a JSON connection got a binary frame");
                        self.payload = payload.to_vec();
                        return Seen::Frame(read_binary(self.form, &payload));
                    }
                    Some(Ok(Message::Text(text))) => {
                        assert!(self.form.is_json(), "a protobuf connection got text: {text}");
                        return Seen::Frame(read_text(&text));
                    }
                    Some(Ok(Message::Close(frame))) => {
                        return Seen::Closed(frame.map(|f| (f.code.into(), f.reason.to_string())));
                    }
                    Some(Ok(_)) => {}
                    None | Some(Err(Error::ConnectionClosed | Error::AlreadyClosed | Error::Io(_))) => {
                        return Seen::Closed(None);
                    }
                    Some(Err(Error::Protocol(error))) => {
                        let reset = error.to_string().contains("without closing handshake");
                        assert!(reset, "the node broke the WebSocket protocol: {error}");
                        return Seen::Closed(None);
                    }
                    Some(Err(error)) => panic!("the node broke the WebSocket protocol: {error}"),
                }
            },
            Link::Tcp(stream) => {
                let mut head = [0; 3];
                if stream.read_exact(&mut head).await.is_err() {
                    return Seen::Closed(None);
                }
                let mut payload = vec![0; 1 + usize::from(u16::from_le_bytes([head[1], head[2]]))];
                payload[0] = head[0];
                stream.read_exact(&mut payload[1..]).await.expect("the TCP frame is complete");
                self.payload = payload;
                Seen::Frame(read_binary(self.form, &self.payload))
            }
        }
    }

    /// Returns the next event other than a PING. A polite client answers PINGs.
    pub async fn next(&mut self) -> Seen {
        if let Some(frame) = self.kept.pop_front() {
            return Seen::Frame(frame);
        }
        self.fresh().await
    }

    async fn fresh(&mut self) -> Seen {
        loop {
            let seen = within("the next frame", self.read()).await;
            if seen != Seen::Frame(Frame::Ping) {
                return seen;
            }
            if self.polite {
                self.pong().await;
            }
        }
    }

    /// Returns the next MESSAGE; any other event fails the test.
    pub async fn message(&mut self) -> Value {
        match self.next().await {
            Seen::Frame(Frame::Message(message)) => message,
            other => panic!("expected a MESSAGE, got {other:?}"),
        }
    }

    /// Returns the next REPLY; any other event fails the test.
    pub async fn reply(&mut self) -> Value {
        match self.next().await {
            Seen::Frame(Frame::Reply(reply)) => reply,
            other => panic!("expected a REPLY, got {other:?}"),
        }
    }

    /// Waits for a PING and does not answer it.
    pub async fn ping(&mut self) {
        let seen = within("the PING", self.read()).await;
        assert_eq!(seen, Seen::Frame(Frame::Ping));
    }

    /// Reads to the end of the connection and returns its close code and reason.
    pub async fn closed(&mut self) -> Option<(u16, String)> {
        loop {
            if let Seen::Closed(why) = self.next().await {
                return why;
            }
        }
    }

    /// Returns the close code; the transport must have one.
    pub async fn close_code(&mut self) -> u16 {
        self.closed().await.expect("the node sends a close frame").0
    }

    /// Sends a SendBody and waits for its REPLY. Messages that arrive meanwhile are kept.
    pub async fn ask(&mut self, key: &str, data: Value) -> Value {
        self.sent(key, data).await;
        let mut others = VecDeque::new();
        loop {
            match self.fresh().await {
                Seen::Frame(Frame::Reply(reply)) if reply["key"] == key => {
                    self.kept.append(&mut others);
                    return reply;
                }
                Seen::Frame(frame) => others.push_back(frame),
                Seen::Closed(why) => panic!("closed with {why:?} while waiting for the reply to {key}"),
            }
        }
    }

    /// Returns everything that the node has sent to this client so far. A reply marks the end, so the wait is bounded.
    pub async fn drain(&mut self) -> Vec<Value> {
        self.ask("no_such_key", json!({})).await;
        self.kept
            .drain(..)
            .map(|frame| match frame {
                Frame::Message(message) => message,
                other => panic!("expected messages only, got {other:?}"),
            })
            .collect()
    }

    /// Returns every message up to the end of the connection.
    pub async fn rest(mut self) -> Vec<Value> {
        let mut messages = Vec::new();
        loop {
            match self.next().await {
                Seen::Frame(Frame::Message(message)) => messages.push(message),
                Seen::Frame(_) => {}
                Seen::Closed(_) => return messages,
            }
        }
    }

    /// Sends a SendBody without waiting for a reply.
    pub async fn sent(&mut self, key: &str, data: Value) {
        let request = self.encode(key, &data);
        self.raw(request).await;
    }

    /// Encodes a SendBody. A client that repeats a large one encodes it once.
    pub fn encode(&self, key: &str, data: &Value) -> Message {
        let body = json!({"key": key, "timestamp": 1_700_000_000_000_i64, "data": data});
        if self.form.is_json() { Message::text(sent_text(&body)) } else { Message::binary(sent_binary(&body)) }
    }

    pub async fn pong(&mut self) {
        if self.form.is_json() {
            self.raw(Message::text(r#"{"type":0}"#)).await;
        } else {
            self.raw(Message::binary(b"\0PONG".to_vec())).await;
        }
    }

    /// Sends one payload unchanged. On TCP, its first byte is the type, and the length is inserted after it.
    pub async fn raw(&mut self, message: Message) {
        match &mut self.link {
            Link::WebSocket(socket) => {
                let _ = socket.send(message).await;
            }
            Link::Tcp(stream) => {
                let payload = message.into_data();
                let length = u16::try_from(payload.len() - 1).unwrap().to_le_bytes();
                let frame = [&payload[..1], &length, &payload[1..]].concat();
                let _ = stream.write_all(&frame).await;
            }
        }
    }

    /// Closes the connection with a close handshake.
    pub async fn close(mut self) {
        match &mut self.link {
            Link::WebSocket(socket) => {
                let _ = (**socket).close(None).await;
                while let Some(Ok(_)) = within("the close echo", socket.next()).await {}
            }
            Link::Tcp(stream) => {
                let _ = stream.shutdown().await;
                let mut rest = Vec::new();
                let _ = within("the close of the connection", stream.read_to_end(&mut rest)).await;
            }
        }
    }
}

//! `skylark connect`: a client for terminals and scripts.

mod resume;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::{Request, Uri};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines, Stdin};
use tokio::signal::unix::{SignalKind, signal};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};

use super::dial::{Pipe, Schemes, Trust};
use super::http::local_url;
use super::token::mint;
use super::wire::{Dialect, Frame, Payload};
use super::{ConfigSource, block_on, print};
use crate::clock;
use crate::config::Service;
use crate::id::{Device, Uid};
use resume::Positions;

/// Schemes of a node's WebSocket.
const SCHEMES: Schemes = ["ws", "wss"];
/// Lifetime of a token minted for `--uid`.
const TTL: Duration = Duration::from_secs(12 * 3600);

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("who").required(true), after_help = FORMAT)]
pub(super) struct Connect {
    /// Connect as this user, with a token minted as `skylark token` does.
    #[arg(long, group = "who")]
    uid: Option<Uid>,
    /// Connect with this token.
    #[arg(long, group = "who")]
    token: Option<String>,
    /// The device to connect as.
    #[arg(long)]
    device: Option<Device>,
    /// The node's WebSocket [default: the first listener of the configuration that serves `ws`].
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Message layout and coding.
    #[arg(long, value_enum, default_value_t = Dialect::YunqueJson)]
    dialect: Dialect,
    /// Keep the positions of all streams in this file, and ask for the messages missed since they were written.
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    #[command(flatten)]
    trust: Trust,
}

const FORMAT: &str = "\
Each frame from the node is printed as one JSON line:
  {\"type\":\"message\",\"message\":{…}}   a message, its fields named as the dialect names them
  {\"type\":\"reply\",\"reply\":{…}}       the answer to a SendBody; the first one is the node's `client_bind`
  {\"type\":\"ping\"}                    answered at once
  {\"type\":\"closed\",\"code\":4003,\"reason\":\"restart\"}   the last line, if the node closes the connection

Each line of input is sent as a SendBody: its key, then optional data as a JSON object of strings:
  room_join {\"room\":\"lobby\"}
  message {\"to\":\"room:lobby\",\"action\":\"chat\",\"text\":\"hi\"}

With --resume the first frame of the client is a client_bind with its positions, and room_join asks for the
messages missed in the room. Standard error tells what was recovered. A repeated message is not printed.

The connection stays open at the end of the input; SIGINT and SIGTERM close it. Exit code 1 if the node closed it.";

type Socket = WebSocketStream<Pipe>;

impl Connect {
    pub(super) fn run(self, source: &ConfigSource) -> anyhow::Result<()> {
        let token = match (&self.token, &self.uid) {
            (Some(token), _) => token.clone(),
            (None, Some(uid)) => {
                let config = source.load()?.config;
                mint(&config.plugins.dir, uid, self.device.as_ref(), &[], TTL)?
            }
            (None, None) => bail!("expected --uid or --token"),
        };
        let url = match &self.url {
            Some(url) => url.clone(),
            None => local_url(&source.load()?.config, Service::Ws, SCHEMES)? + "/ws",
        };
        let mut positions = self.resume.as_deref().map(Positions::open).transpose()?;
        block_on(async {
            let mut socket = self.dial(&url, positions.is_none().then_some(token.as_str())).await?;
            if let Some(positions) = &positions {
                self.bind(&mut socket, &url, token, positions).await?;
            }
            let done = relay(socket, self.dialect, &mut positions).await;
            let saved = positions.as_mut().map_or(Ok(()), Positions::save);
            done.and(saved)
        })
    }

    /// Binds by a frame, which has room for more positions than a query.
    async fn bind(&self, socket: &mut Socket, url: &str, token: String, positions: &Positions) -> anyhow::Result<()> {
        let mut data = positions.request();
        data.insert("token".to_owned(), token);
        if let Some(device) = &self.device {
            data.insert("deviceId".to_owned(), device.to_string());
        }
        let (_, query) = url.split_once('?').unwrap_or_default();
        if let Some((_, channel)) = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "channel") {
            data.insert("channel".to_owned(), channel.into_owned());
        }
        send(socket, self.dialect.sent("client_bind", clock::now_millis(), data)).await
    }

    /// Opens a connection, with the token in the handshake if one is given.
    async fn dial(&self, url: &str, token: Option<&str>) -> anyhow::Result<Socket> {
        let uri: Uri = url.parse().with_context(|| format!("expected a URL such as ws://host:port/ws, got {url}"))?;
        let authority = uri.authority().with_context(|| format!("expected a host in {url}"))?;
        let stream = self.trust.dial(&uri, SCHEMES).await?;
        let mut request = Request::get(with_device(&uri, self.device.as_ref())?)
            .header("host", authority.as_str())
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", tungstenite::handshake::client::generate_key())
            .header("sec-websocket-protocol", self.dialect.subprotocol());
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(()).context("the token has characters that a header cannot carry")?;
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await.map_err(refused)?;
        eprintln!("connected to {authority} in {}", self.dialect.subprotocol());
        Ok(socket)
    }
}

fn with_device(uri: &Uri, device: Option<&Device>) -> anyhow::Result<Uri> {
    let Some(device) = device else { return Ok(uri.clone()) };
    let separator = if uri.query().is_some() { '&' } else { '?' };
    let device: String = form_urlencoded::byte_serialize(device.as_str().as_bytes()).collect();
    Ok(format!("{uri}{separator}device={device}").parse()?)
}

/// Adds the response of the node if it answered the upgrade with an HTTP error.
fn refused(error: tungstenite::Error) -> anyhow::Error {
    match &error {
        tungstenite::Error::Http(answer) => {
            let body = answer.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default().into_owned();
            anyhow::anyhow!("the node answered {} to the upgrade: {}", answer.status(), body.trim())
        }
        _ => anyhow::Error::new(error).context("the WebSocket handshake failed"),
    }
}

async fn relay(mut socket: Socket, dialect: Dialect, positions: &mut Option<Positions>) -> anyhow::Result<()> {
    let mut lines = Some(BufReader::new(tokio::io::stdin()).lines());
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    loop {
        tokio::select! {
            frame = socket.next() => match frame {
                Some(Ok(frame)) => receive(&mut socket, dialect, positions.as_mut(), frame).await?,
                Some(Err(error)) => return Err(error).context("the connection failed"),
                None => bail!("the connection closed without a close frame"),
            },
            line = next_line(&mut lines) => match line? {
                Some(line) => send_line(&mut socket, dialect, positions.as_ref(), &line).await?,
                None => lines = None,
            },
            () = until_due(positions.as_ref()) => positions.as_mut().map_or(Ok(()), Positions::save)?,
            _ = interrupt.recv() => return close(socket).await,
            _ = terminate.recv() => return close(socket).await,
        }
    }
}

/// Waits until positions are to be written; pending forever if none are kept.
async fn until_due(positions: Option<&Positions>) {
    match positions {
        Some(positions) => positions.until_due().await,
        None => std::future::pending().await,
    }
}

/// Reads the next line; pending forever after the end of the input.
async fn next_line(lines: &mut Option<Lines<BufReader<Stdin>>>) -> anyhow::Result<Option<String>> {
    match lines {
        Some(lines) => Ok(lines.next_line().await?),
        None => std::future::pending().await,
    }
}

async fn receive(
    socket: &mut Socket,
    dialect: Dialect,
    positions: Option<&mut Positions>,
    frame: Message,
) -> anyhow::Result<()> {
    let payload = match frame {
        Message::Text(text) => Payload::Text(text.to_string()),
        Message::Binary(bytes) => Payload::Binary(bytes),
        Message::Close(frame) => {
            let (code, reason) = frame.map_or((1005, String::new()), |f| (f.code.into(), f.reason.to_string()));
            print(&format!(r#"{{"type":"closed","code":{code},"reason":{}}}"#, Value::from(reason.as_str())))?;
            bail!("the node closed the connection: {code} {reason}");
        }
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Ok(()),
    };
    let frame = dialect.read(&payload)?;
    let mut notes = Vec::new();
    if let Some(positions) = positions {
        match &frame {
            Frame::Message(message) => {
                let is_new = positions.take(message.get());
                if !is_new {
                    return Ok(());
                }
            }
            Frame::Reply(reply) => {
                notes = positions.hear(reply.get());
                // A client that is killed after the answer to its bind can resume.
                positions.save()?;
            }
            Frame::Ping => {}
        }
    }
    print(&frame.to_string())?;
    notes.iter().for_each(|note| eprintln!("{note}"));
    if matches!(frame, Frame::Ping) {
        send(socket, dialect.pong()).await?;
    }
    Ok(())
}

/// Sends a line. An invalid line is reported and otherwise ignored.
async fn send_line(
    socket: &mut Socket,
    dialect: Dialect,
    positions: Option<&Positions>,
    line: &str,
) -> anyhow::Result<()> {
    match parse_line(line) {
        Ok(None) => Ok(()),
        Ok(Some((key, mut data))) => {
            if let Some(positions) = positions {
                positions.complete(&key, &mut data);
            }
            send(socket, dialect.sent(&key, clock::now_millis(), data)).await
        }
        Err(error) => {
            eprintln!("not sent: {error:#}");
            Ok(())
        }
    }
}

async fn send(socket: &mut Socket, payload: Payload) -> anyhow::Result<()> {
    let message = match payload {
        Payload::Text(text) => Message::text(text),
        Payload::Binary(bytes) => Message::binary(bytes),
    };
    socket.send(message).await.context("cannot send")
}

async fn close(mut socket: Socket) -> anyhow::Result<()> {
    let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    // The connection ends in any case.
    drop(socket.close(Some(close)).await);
    Ok(())
}

/// Parses `key {"name":"value"}`; `None` for an empty line.
pub(super) fn parse_line(line: &str) -> anyhow::Result<Option<(String, BTreeMap<String, String>)>> {
    let line = line.trim();
    let (key, data) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    if key.is_empty() {
        return Ok(None);
    }
    let data: Value = match data.trim() {
        "" => json!({}),
        data => serde_json::from_str(data).context("expected a key and a JSON object")?,
    };
    let Value::Object(entries) = data else { bail!("expected a key and a JSON object, got {data}") };
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    Ok(Some((key.to_owned(), entries.into_iter().map(|(name, value)| (name, text(value))).collect())))
}

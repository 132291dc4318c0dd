//! `--peer`: an external server that is already running, measured by the same generator with the same cells.
//!
//! Common part of all adapters: the command-line syntax of a peer and the interface of an adapter. Builds and downloads
//! nothing. One file in `peer/` per kind.

mod bars;
mod centrifugo;
mod cim;
mod options;
mod pusher;

use std::fmt::Debug;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::load::generator::FirstRequest;
use crate::load::traffic::Shape;
use crate::load::websocket::{self, Frame};
use crate::load::wire::{Item, uid};
pub(super) use bars::bars;
use options::Options;

/// A running server and its protocol.
#[derive(Debug)]
pub(super) struct Peer {
    /// Name in the table.
    pub(super) name: String,
    /// Address for receivers.
    pub(super) address: SocketAddr,
    /// Address for publishers.
    pub(super) api: SocketAddr,
    pub(super) adapter: Box<dyn Adapter>,
    pid: Option<u32>,
    start: Option<String>,
}

/// The protocol of one kind of peer.
pub(super) trait Adapter: Debug + Send + Sync {
    /// True if its publishers can ask for this shape in one request.
    fn takes(&self, shape: Shape) -> bool;
    /// True if its HTTP API answers several requests on one connection, so that they can be pipelined.
    fn pipelines(&self) -> bool {
        true
    }
    /// The WebSocket upgrade request; `None` if the server uses plain TCP.
    fn upgrade(&self) -> Option<Vec<u8>>;
    /// The first message of a receiver.
    fn hello(&self, client: &PeerClient) -> Vec<u8>;
    /// Number of welcomes that a receiver awaits before messages can be published to it.
    fn welcomes(&self, client: &PeerClient) -> usize;
    /// Splits the frame at the start of `bytes`; `None` if it is incomplete.
    fn split<'a>(&self, bytes: &'a [u8]) -> Option<Frame<'a>> {
        websocket::split(bytes)
    }
    /// Splits the part at the start of a frame's payload. A frame may contain several messages.
    fn part<'a>(&self, payload: &'a [u8]) -> Part<'a>;
    /// The answer to a part that requires one.
    fn answer(&self, client: &PeerClient, part: Part<'_>) -> Vec<u8>;
    /// Appends the HTTP request that publishes these items.
    fn request(&self, out: &mut Vec<u8>, items: &[Item], receivers: u32);
    /// True if the body of a 200 response contains a refusal.
    fn is_refusal(&self, body: &[u8]) -> bool;
}

/// One receiver of a peer.
#[derive(Debug, Clone)]
pub(super) struct PeerClient {
    pub(super) peer: &'static Peer,
    /// The user.
    pub(super) user: String,
    /// Subscribed channels.
    pub(super) channels: Vec<String>,
    /// Welcomes still to come.
    pub(super) awaited: usize,
}

/// One message of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part<'a> {
    pub(super) kind: PartKind,
    pub(super) body: &'a [u8],
    /// Length in the payload, including its framing.
    pub(super) len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartKind {
    Message,
    /// The receiver was admitted, or one of its subscriptions was made.
    Welcome,
    /// Requires an answer: a ping, or a greeting.
    NeedsAnswer,
    Refusal,
    Other,
    /// Violates the protocol.
    Invalid,
}

/// The channel of every receiver.
const EVERYONE: &str = "all";

impl Peer {
    /// Parses `KIND=URL[,OPTION=VALUE]…`.
    ///
    /// # Errors
    /// The message tells the expected form.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let (kind, rest) = text.split_once('=').context("expected KIND=URL[,OPTION=VALUE]…")?;
        let mut options = Options::parse(rest)?;
        let url = options.url.clone();
        let (adapter, api): (Box<dyn Adapter>, SocketAddr) = match kind {
            "centrifugo" => centrifugo::open(&mut options, centrifugo::Coding::Json)?,
            "centrifugo-protobuf" => centrifugo::open(&mut options, centrifugo::Coding::Protobuf)?,
            "pusher" => pusher::open(&mut options)?,
            "cim" => cim::open(&mut options)?,
            _ => bail!("unknown kind of peer {kind:?}: expected centrifugo, centrifugo-protobuf, pusher or cim"),
        };
        let pid = options.take("pid").map(|pid| pid.parse().with_context(|| format!("pid: not a number: {pid:?}")));
        let name = options.take("name").unwrap_or_else(|| kind.to_owned());
        let peer =
            Self { name, address: url.address()?, api, adapter, pid: pid.transpose()?, start: options.start.take() };
        options.finish()?;
        Ok(peer)
    }

    /// Restarts the peer if a start command was given, so that no cell sees the state of another. Returns the process
    /// id, if known.
    ///
    /// # Errors
    /// The command failed, or did not print a process id.
    pub(super) fn begin(&self) -> anyhow::Result<Option<u32>> {
        let Some(start) = &self.start else { return Ok(self.pid) };
        let output = Command::new("sh").args(["-c", start]).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let output = output.with_context(|| format!("cannot run {start:?}"))?;
        if !output.status.success() {
            bail!("{start:?} failed: {}", output.status);
        }
        let printed = String::from_utf8_lossy(&output.stdout);
        let pid = printed.lines().last().and_then(|line| line.trim().parse().ok());
        Ok(Some(pid.with_context(|| format!("{start:?}: expected a process id as its last line, got {printed:?}"))?))
    }

    /// Creates receiver `number`: in the given rooms, or else in its own channel and that of everyone.
    pub(super) fn client(&'static self, number: u32, rooms: Vec<String>) -> PeerClient {
        let user = uid(number);
        let channels = if rooms.is_empty() { vec![EVERYONE.to_owned(), user.clone()] } else { rooms };
        let mut client = PeerClient { peer: self, user, channels, awaited: 0 };
        client.awaited = self.adapter.welcomes(&client);
        client
    }
}

impl PeerClient {
    /// The first request: the upgrade, or the hello if there is no upgrade.
    pub(super) fn first_request(self) -> FirstRequest {
        let opening = self.peer.adapter.upgrade().unwrap_or_else(|| self.peer.adapter.hello(&self));
        FirstRequest { opening, client: Some(Box::new(self)) }
    }
}

/// Peers compare by identity, even if their options are equal.
impl PartialEq for Peer {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Peer {}

impl Part<'_> {
    /// Marks the rest of the payload as invalid.
    const fn invalid(payload: &[u8]) -> Part<'_> {
        Part { kind: PartKind::Invalid, body: payload, len: payload.len() }
    }
}

/// Encodes a protobuf field of bytes or text.
fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
    [&[tag << 3 | 2], with_length(bytes).as_slice()].concat()
}

/// Prefixes the length, as protobuf does.
fn with_length(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 4);
    prost::encoding::encode_varint(bytes.len() as u64, &mut out);
    out.extend_from_slice(bytes);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        format!("{:#}", Peer::parse(text).unwrap_err())
    }

    #[test]
    fn a_peer_is_named_with_its_options() {
        let peer = Peer::parse("pusher=ws://127.0.0.1:6001,id=a,key=k,secret=s,pid=12,name=sockudo").unwrap();
        assert_eq!((peer.name.as_str(), peer.pid, peer.address.port()), ("sockudo", Some(12), 6001));
        assert_eq!(peer.api, peer.address);
        let peer = Peer::parse("centrifugo=ws://127.0.0.1:8000,key=k,secret=s,start=up -c a=1,b 2").unwrap();
        assert_eq!((peer.name.as_str(), peer.start.as_deref()), ("centrifugo", Some("up -c a=1,b 2")));
    }

    #[test]
    fn invalid_peer_reports_its_fault() {
        assert!(fault("centrifugo").contains("KIND=URL"));
        assert!(fault("nats=ws://127.0.0.1:1").contains("unknown kind of peer \"nats\""));
        assert!(fault("pusher=ws://127.0.0.1:1,key=k,secret=s").contains("expected id="));
        assert!(fault("cim=ws://127.0.0.1:1,api=http://127.0.0.1:2,colour=red").contains("no option \"colour\""));
        assert!(fault("cim=http://127.0.0.1:1,api=http://127.0.0.1:2").contains("ws://"));
        assert!(fault("cim=ws://127.0.0.1:1,api=http://127.0.0.1:2,pid=x").contains("pid"));
    }

    #[test]
    fn a_peer_that_is_started_anew_tells_its_process() {
        let of = |start: &str| {
            let text = format!("cim=ws://127.0.0.1:1,api=http://127.0.0.1:2,start={start}");
            Peer::parse(&text).unwrap().begin().map_err(|error| error.to_string())
        };
        assert_eq!(of("echo up; echo 17"), Ok(Some(17)));
        assert!(of("exit 3").unwrap_err().contains("exit status: 3"));
        assert!(of("echo up").unwrap_err().contains("expected a process id"));
    }
}

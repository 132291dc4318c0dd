//! What an operator may set: one typed tree with its defaults. Reading files and variables is in [`load`].
//!
//! Every key stands in `config/skylark.yaml` with its default and a sentence; `tests/tidy.rs` holds the two in step.
//! Knows nothing of what the values are used for.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::id::NodeId;
use crate::protocol::Dialect;

/// The whole tree.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Who this node is.
    pub node: NodeConfig,
    /// Where it listens, and for what.
    pub listeners: Vec<Listener>,
    /// What clients may do.
    pub clients: Clients,
    /// Liveness of connections.
    pub heartbeat: Heartbeat,
    /// Bounds on what comes in.
    pub limits: Limits,
    /// Bounds on what goes out.
    pub queue: Queue,
    /// The push API.
    pub api: Api,
    /// The plugin directory.
    pub plugins: Plugins,
    /// Node to node.
    pub bus: Bus,
    /// Logs.
    pub log: Log,
    /// How the node ends.
    pub drain: Drain,
}

/// Who this node is.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeConfig {
    /// Name among the nodes that share a broker (`Sid`).
    pub id: NodeId,
    /// Number inside connection and message ids, 0–4095, different on each node.
    pub number: u16,
    /// Address that clients are told in the bind reply; empty = the listener's own.
    pub address: String,
    /// Hub shards; 0 = one per core.
    pub shards: usize,
}

/// One address and what it serves.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Address and port; port 0 takes a free one.
    pub address: SocketAddr,
    /// What it serves.
    pub serves: Vec<Service>,
    /// Dialect of a connection that chooses none. On `cim` and `cim-tcp` the coding is sniffed or fixed.
    pub dialect: Dialect,
    /// Pages that may connect: exact origins, `same-origin`, `same-host` (any port), `loopback`, or `*`.
    pub origins: Vec<String>,
    /// Which devices of a user exclude each other.
    pub devices: DevicePolicy,
    /// Whether a token may stand in the query (`?token=`).
    pub query_token: bool,
}

/// What a listener can serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// WebSocket at `/ws`.
    Ws,
    /// The push API.
    Api,
    /// CIM's WebSocket at `/`, coding sniffed.
    Cim,
    /// CIM's TCP framing; shares its address with nothing else.
    CimTcp,
    /// `/metrics` and `/health/*`.
    Metrics,
}

/// Which devices of one user exclude each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DevicePolicy {
    /// Any number of devices.
    AllowAll,
    /// CIM's matrix: android and ios exclude each other; windows, mac and web exclude each other.
    Cim,
}

/// What clients may do.
#[derive(Debug, Clone, PartialEq)]
pub struct Clients {
    /// Whether a client may send `message` to users and joined rooms.
    pub publish: bool,
    /// Most rooms that one connection may be in.
    pub rooms: usize,
}

/// Server-driven liveness.
#[derive(Debug, Clone, PartialEq)]
pub struct Heartbeat {
    /// PING after so long without a write.
    pub interval: Duration,
    /// So many PINGs may stay unanswered.
    pub max_missed: u32,
}

/// Bounds on what comes in.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Live connections of the node.
    pub connections: usize,
    /// Live connections of one address; 0 = no bound.
    pub connections_per_ip: usize,
    /// Connects of one address a second, with a burst of ten times that; 0 = no bound.
    pub connects_per_ip: u32,
    /// Head of a request, TLS and WebSocket handshake.
    pub handshake: Duration,
    /// First frame on a listener that must see one.
    pub first_frame: Duration,
    /// Bind after connect.
    pub unbound: Duration,
    /// Furthest that a handler may extend an unbound connection.
    pub unbound_max: Duration,
    /// Whole message or body after its first byte.
    pub message_timeout: Duration,
    /// Largest frame and message from a client, bytes.
    pub frame_bytes: usize,
    /// Largest request body, bytes.
    pub body_bytes: usize,
    /// Most messages of one request.
    pub batch: usize,
    /// Most users named by one request.
    pub uids: usize,
    /// Auth calls under way at once; more wait.
    pub auth_calls: usize,
}

/// Bounds on what goes out.
#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    /// Bytes waiting for one connection.
    pub bytes: usize,
    /// Frames waiting for one connection.
    pub frames: usize,
    /// A connection that takes no byte for so long is a slow consumer.
    pub write_timeout: Duration,
    /// Commands waiting for one shard.
    pub mailbox: usize,
}

/// The push API.
#[derive(Debug, Clone, PartialEq)]
pub struct Api {
    /// Who may call.
    pub keys: Vec<ApiKey>,
    /// Allows an API without keys on an address that is not loopback.
    pub insecure: bool,
}

/// One caller of the API.
#[derive(Clone, PartialEq)]
pub struct ApiKey {
    /// Name for the log.
    pub name: String,
    /// The secret, as sent in `Authorization: Bearer` or `X-Api-Key`.
    pub key: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiKey").field("name", &self.name).field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

/// A part of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// `/send…`, `/publish`.
    Push,
    /// Lists and counts.
    Read,
    /// Rooms, kick, plugins.
    Manage,
}

/// The plugin directory.
#[derive(Debug, Clone, PartialEq)]
pub struct Plugins {
    /// Where the `.wasm` and `.toml` files lie; empty = no plugins.
    pub dir: PathBuf,
    /// Where compiled plugins are kept between runs; empty = nowhere.
    pub cache: PathBuf,
    /// A file is read when it has not changed for so long.
    pub settle: Duration,
    /// The directory is looked at again after so long, whatever the watcher says.
    pub rescan: Duration,
    /// Auth plugins and fail-closed filters that may disappear without closing the gate.
    pub allow_remove: Vec<String>,
    /// Most live instances over all plugins.
    pub instances: u32,
}

/// Node to node.
#[derive(Debug, Clone, PartialEq)]
pub struct Bus {
    /// Which engine.
    pub kind: BusKind,
}

/// Engines of the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusKind {
    /// One node, nothing shared.
    Memory,
}

/// Logs.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// A tracing filter, e.g. `info,skylark::plugin=debug`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
    /// Where lines go besides standard error; empty = nowhere.
    pub file: PathBuf,
    /// When a new file begins.
    pub rotation: Rotation,
    /// How many old files stay.
    pub keep: usize,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}

/// When a new log file begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// Each hour.
    Hourly,
    /// Each day.
    Daily,
    /// Never.
    Never,
}

/// How the node ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Drain {
    /// Readiness is red for so long before anything closes.
    pub wait: Duration,
    /// Per cent of the connections closed in each step of 500 ms.
    pub step_percent: u32,
    /// The whole drain takes no longer.
    pub grace: Duration,
}

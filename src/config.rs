//! What an operator may set: one typed tree, with the default and the sentence of each key beside its field.
//!
//! Reading files and variables is in [`load`]; rules that bind several keys are in `check`. Every key stands in
//! `config/skylark.yaml` with its default and its sentence; a test here holds the two in step.
//! Knows nothing of what the values are used for.

mod changes;
mod check;
mod credential;
mod fault;
mod keys;
pub mod load;
#[macro_use]
mod section;
mod bus;
mod intakes;
mod properties;
mod read;
mod value;
mod veil;
mod warn;
mod yaml;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::id::{MAX_NODE_NUMBER, NodeId};
use crate::protocol::Dialect;

pub use bus::{Bus, BusKind, KafkaConfig, RedisConfig};
pub use changes::Changes;
pub use credential::Credential;
pub use fault::{ConfigError, Fault};
pub use intakes::{Intake, IntakeKind, intake_names};
pub use keys::{Key, keys, reference};
pub use load::{Entry, Examined, GuardedFile, Loaded, Loader, Reloaded};
pub use properties::Properties;
pub use value::Source;

use read::{Bounded, Bytes, Secret};

section! {
    /// The whole tree.
    pub struct Config {
        /// Who this node is.
        pub node: NodeConfig,
        /// Where the node listens, and for what. A list in a later file replaces the whole list of an earlier one.
        pub listeners: Vec<Listener> = vec![Listener::plain()],
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
        /// Topics from which back ends are heard besides the push API.
        pub intakes: Vec<Intake> = Vec::new(),
        /// How nodes share the clients.
        pub cluster: Cluster,
        /// Logs.
        pub log: Log,
        /// How the node ends.
        pub drain: Drain,
    }
}

section! {
    /// Who this node is.
    pub struct NodeConfig {
        /// Name among the nodes that share a broker (`Sid` in an envelope); unset, the host's name.
        pub id: NodeId = NodeId::parse("n1").expect("a valid name") => "the host's name, or n1",
        /// Number inside connection and message ids, 0–4095, different on each node.
        pub number: u16 [Bounded(0, MAX_NODE_NUMBER as u64)] = 1,
        /// Address that clients are told in the bind reply; empty = the listener's own.
        pub address: String = String::new(),
        /// Folder that keeps the bound of this node's ids over restarts, where the bus is `memory`; made where it is missing. Empty, or
        /// where it cannot be written: ids begin at the clock, and the start says so.
        pub state: PathBuf = PathBuf::from("state"),
        /// Hub shards; 0 = one per core.
        pub shards: usize [Bounded(0, 1024)] = 0,
    }
}

item! {
    /// One address and what it serves.
    pub struct Listener {
        /// Address and port; port 0 takes a free one.
        pub address: SocketAddr,
        /// What it serves: `ws` (WebSocket at `/ws`), `api` (the push API), `cim` (CIM's WebSocket at `/`), `cim-tcp` (CIM's TCP framing; alone on its address), `metrics` (`/metrics` and `/health/*`).
        pub serves: Vec<Service>,
        /// Dialect of a connection that chooses none: `yunque` or `cim`. On `cim` and `cim-tcp` the coding is sniffed or fixed.
        pub dialect: Dialect = dialect_of(serves.as_deref()) => "cim where it serves cim or cim-tcp, else yunque",
        /// Pages that may connect: exact origins, `same-origin`, `same-host` (any port), `loopback`, or `*`; an empty list lets none.
        pub origins: Vec<String> = origins_of(serves.as_deref()) => "[same-host] where it serves cim, else [same-origin]",
        /// Which devices of a user exclude each other: `allow_all`, or `cim` (android and ios; windows, mac and web).
        pub devices: DevicePolicy = devices_of(serves.as_deref()) => "cim where it serves cim or cim-tcp, else allow_all",
        /// Whether a token may stand in the query (`?token=`).
        pub query_token: bool = true => "true",
        /// Certificate and key, where it speaks TLS; one that changes is taken while the node runs.
        pub tls: Option<TlsFiles> = None => "~, no TLS",
    }
}

item! {
    /// The files of a TLS listener.
    pub struct TlsFiles {
        /// PEM file of the certificate, and behind it those between it and the root.
        pub cert: PathBuf,
        /// PEM file of the certificate's private key.
        pub key: PathBuf,
    }
}

words! {
    /// What a listener can serve.
    pub enum Service {
        /// WebSocket at `/ws`.
        Ws = "ws",
        /// The push API.
        Api = "api",
        /// CIM's WebSocket at `/`, coding sniffed.
        Cim = "cim",
        /// CIM's TCP framing; shares its address with nothing else.
        CimTcp = "cim-tcp",
        /// `/metrics` and `/health/*`.
        Metrics = "metrics",
    }
}

words! {
    /// Which devices of one user exclude each other.
    pub enum DevicePolicy {
        /// Any number of devices.
        AllowAll = "allow_all",
        /// CIM's matrix: android and ios exclude each other; windows, mac and web exclude each other.
        Cim = "cim",
    }
}

section! {
    /// What clients may do.
    pub struct Clients {
        /// Whether a client may send `message` to users and to rooms that it has joined.
        pub publish: bool = false,
        /// Most rooms that one connection may be in.
        pub rooms: usize [Bounded(1, 10_000)] = 100,
        /// Rooms that any bound client may join: names, or beginnings of names that end with `*`; `["*"]` opens all. Plugins of the role `access` are asked first.
        pub open_rooms: Vec<String> = Vec::new(),
    }
}

section! {
    /// Server-driven liveness.
    pub struct Heartbeat {
        /// PING after so long without a write; one CIM client gives up at 30s.
        pub interval: Duration = Duration::from_secs(25),
        /// So many PINGs may stay unanswered before the connection is closed with 4000.
        pub max_missed: u32 [Bounded(1, 100)] = 2,
    }
}

section! {
    /// Bounds on what comes in.
    pub struct Limits {
        /// Live connections of the node.
        pub connections: usize [Bounded(1, 100_000_000)] = 100_000,
        /// Live connections of one address; 0 = no bound.
        pub connections_per_ip: usize [Bounded(0, 100_000_000)] = 1_000,
        /// Connects of one address a second, with a burst of ten times that; 0 = no bound. Requests of back ends are none, unless
        /// each comes by a TLS handshake of its own.
        pub connects_per_ip: u32 [Bounded(0, 1_000_000)] = 50,
        /// Head of a request, TLS and WebSocket handshake.
        pub handshake: Duration = Duration::from_secs(5),
        /// First frame on a listener that must see one.
        pub first_frame: Duration = Duration::from_secs(10),
        /// Bind after connect.
        pub unbound: Duration = Duration::from_secs(45),
        /// Furthest that a handler may extend an unbound connection.
        pub unbound_max: Duration = Duration::from_secs(300),
        /// Idle time of an HTTP connection between requests; give it more than the idle time of a proxy's pool.
        pub keep_alive: Duration = Duration::from_secs(75),
        /// Whole message or body after its first byte.
        pub message_timeout: Duration = Duration::from_secs(10),
        /// Largest frame and message from a client.
        pub frame_bytes: usize [Bytes(1 << 10, 16 << 20)] = 64 << 10,
        /// Largest request body.
        pub body_bytes: usize [Bytes(1 << 10, 64 << 20)] = 1 << 20,
        /// Most messages of one request.
        pub batch: usize [Bounded(1, 10_000)] = 500,
        /// Most users named by one request.
        pub uids: usize [Bounded(1, 1_000_000)] = 10_000,
        /// Auth calls under way at once, and as many access calls; more wait.
        pub auth_calls: usize [Bounded(1, 100_000)] = 64,
    }
}

section! {
    /// Bounds on what goes out.
    pub struct Queue {
        /// Bytes waiting for one connection; more closes it as a slow consumer.
        pub bytes: usize [Bytes(64 << 10, 1 << 30)] = 1 << 20,
        /// Frames waiting for one connection; more closes it as a slow consumer.
        pub frames: usize [Bounded(16, 1_000_000)] = 4_096,
        /// A connection that takes no byte for so long is a slow consumer.
        pub write_timeout: Duration = Duration::from_secs(10),
        /// Commands waiting for one shard.
        pub mailbox: usize [Bounded(16, 1_000_000)] = 1_024,
    }
}

section! {
    /// The push API.
    pub struct Api {
        /// Who may call. None is allowed only on loopback addresses, or with `insecure`.
        pub keys: Vec<ApiKey> = Vec::new(),
        /// Allows an API without keys on an address that is not loopback.
        pub insecure: bool = false,
    }
}

item! {
    /// One caller of the API.
    pub struct ApiKey {
        /// Name for the log.
        pub name: String,
        /// The secret, as sent in `Authorization: Bearer` or `X-Api-Key`; at least 16 bytes, best as `{file: …}` or `{env: …}`.
        pub key: String [Secret(16)],
        /// What it may do: `push` (send, publish), `read` (lists, counts), `manage` (rooms, kick), `plugins` (enable, disable, reload, rollback, log).
        pub scopes: Vec<Scope> = Scope::ALL.to_vec() => "all four",
    }
}

words! {
    /// A part of the API.
    pub enum Scope {
        /// `/send…`, `/publish`.
        Push = "push",
        /// Lists, counts, plugins, nodes.
        Read = "read",
        /// Rooms, kick.
        Manage = "manage",
        /// Commands to plugins, and their log.
        Plugins = "plugins",
    }
}

impl Scope {
    /// Every scope. A key that names none has them all.
    pub const ALL: [Self; 4] = [Self::Push, Self::Read, Self::Manage, Self::Plugins];
}

section! {
    /// The plugin directory.
    pub struct Plugins {
        /// Where the `.wasm` and `.toml` files lie, relative to the working directory; empty = no plugins, and nobody is let in.
        pub dir: PathBuf = PathBuf::new(),
        /// Where compiled plugins are kept between runs, readable by the owner only; empty = nowhere.
        pub cache: PathBuf = PathBuf::new(),
        /// Bytes of compiled code that may lie there, what was not used for longest goes first; and as many of the versions that a
        /// rollback goes back to.
        pub cache_bytes: usize [Bytes(1 << 20, 1 << 40)] = 512 << 20,
        /// What compiling one plugin may take, in a process of its own; more refuses the file.
        pub compile: CompileLimits,
        /// Where plugins keep their keys (`kv`): `memory` (gone when the node ends; where the bus is Redis, in Redis, for all nodes; with a Kafka bus each node has its own), or a file of this node's own, as a path with a slash
        /// such as `./state/kv.redb`.
        pub kv: KvPlace = KvPlace::Memory,
        /// A file is read when it has not changed for so long; one that is gone for three seconds, or longer if this is, is deleted.
        pub settle: Duration = Duration::from_millis(150),
        /// The directory is looked at again after so long, whatever the watcher says.
        pub rescan: Duration = Duration::from_secs(5),
        /// Auth plugins and fail-closed filters that may disappear without closing the gate.
        pub allow_remove: Vec<String> = Vec::new(),
        /// Certificates that plugins' requests trust besides the system's, a PEM file; empty = none.
        pub http_ca: PathBuf = PathBuf::new(),
        /// Whether each manifest must pin its file (`sha256 = "…"`). A pin counts without this, too.
        pub require_hash: bool = false,
        /// Ed25519 public keys, base64. Where one is named, each file must be signed by one of them, in `NAME.wasm.sig` beside it.
        pub signing_keys: Vec<String> = Vec::new(),
        /// Most live instances over all plugins.
        pub instances: u32 [Bounded(1, 10_000)] = 256,
        /// The ticks that bound the time of plugins may come so late before the node says that it is not ready.
        pub ticker_lag: Duration = Duration::from_secs(1),
        /// The furthest that manifests may raise limits (`[limits]`). One that asks for more is refused when it is loaded; a default that is larger is lowered.
        pub caps: PluginCaps,
        /// When a plugin that fails again and again is not asked for a while.
        pub breaker: Breaker,
        /// How long a new version has to prove itself before the one before it is let go.
        pub probation: Probation,
    }
}

/// Where plugins keep their keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum KvPlace {
    /// In this process's memory.
    #[default]
    Memory,
    /// In a file of this node's own.
    File(PathBuf),
}

section! {
    /// The furthest that manifests may raise limits.
    pub struct PluginCaps {
        /// CPU time of one call inside the guest.
        pub cpu: Duration = Duration::from_secs(1),
        /// Time of one call from begin to answer, whatever it goes into.
        pub wall: Duration = Duration::from_secs(30),
        /// Bytes of memory and tables of one instance.
        pub memory: usize [Bytes(1 << 20, 4 << 30)] = 512 << 20,
        /// Table elements of one instance.
        pub tables: usize [Bounded(16, 10_000_000)] = 65_536,
        /// Handles that one instance holds, its own resources and the host's.
        pub handles: usize [Bounded(16, 10_000_000)] = 65_536,
        /// Live instances of one plugin.
        pub instances: usize [Bounded(1, 10_000)] = 256,
        /// Calls after which an instance is replaced.
        pub recycle: usize [Bounded(1, 1_000_000_000)] = 10_000_000,
        /// Bytes that one call hands over to the node.
        pub host_bytes: usize [Bytes(4 << 10, 1 << 30)] = 64 << 20,
        /// Bytes that one call logs.
        pub log_bytes: usize [Bytes(0, 64 << 20)] = 1 << 20,
        /// Bytes that a plugin logs in a second, over all its calls.
        pub log_rate: usize [Bytes(0, 1 << 30)] = 8 << 20,
        /// Pushes, joins, leaves and kicks of one call.
        pub pushes: usize [Bounded(0, 1_000_000)] = 10_000,
        /// Bytes of a plugin's keys and values.
        pub kv_bytes: usize [Bytes(0, 16 << 30)] = 256 << 20,
        /// Keys of a plugin.
        pub kv_keys: usize [Bounded(0, 100_000_000)] = 1_000_000,
    }
}

section! {
    /// What compiling one plugin may take, in a process of its own.
    pub struct CompileLimits {
        /// Memory; a Python guest takes about 500MiB.
        pub memory: usize [Bytes(16 << 20, 64 << 30)] = 1 << 30,
        /// CPU time, whole seconds.
        pub cpu: Duration = Duration::from_secs(60),
        /// Time from begin to end. Compiling has the lowest priority, so a busy machine makes it long.
        pub wall: Duration = Duration::from_secs(300),
    }
}

section! {
    /// When a plugin that fails again and again is not asked for a while: its role's failure answer is given instead.
    pub struct Breaker {
        /// So many failures of the guest among at most twice as many successive calls open the circuit, if at least three sources and more than half of those seen lately had one.
        pub failures: usize [Bounded(1, 10_000)] = 10,
        /// How long it stays open; then one call is let through, and closes it if it is answered. A source whose calls alone fail is set apart for as long.
        pub rest: Duration = Duration::from_secs(5),
    }
}

section! {
    /// How long a new version has to prove itself: if its circuit opens, the version before it comes back by itself.
    pub struct Probation {
        /// At least so many calls.
        pub calls: u64 [Bounded(0, 1_000_000_000)] = 1_000,
        /// And at least so long; however few calls came, it ends after twenty times that, ten minutes at least.
        pub time: Duration = Duration::from_secs(30),
    }
}

section! {
    /// How nodes share the clients.
    pub struct Cluster {
        /// By what a client's node is chosen (`/nodes/choose`, `next` of the bind reply): `uid` (its user) or `ip` (its address).
        pub choose_by: ChooseBy = ChooseBy::Uid,
    }
}

words! {
    /// By what a client's node is chosen.
    pub enum ChooseBy {
        /// Its user.
        Uid = "uid",
        /// Its address.
        Ip = "ip",
    }
}

section! {
    /// Logs.
    pub struct Log {
        /// What is logged: a level (`trace`, `debug`, `info`, `warn`, `error`, `off`), then, by commas, levels of modules, e.g. `info,skylark::plugin=debug`.
        pub level: String = "info".to_owned(),
        /// How lines on standard error look: `auto` (text on a terminal, JSON otherwise), `text` or `json`.
        pub format: LogFormat = LogFormat::Auto,
        /// File that lines go to besides standard error, always as JSON; empty = none.
        pub file: PathBuf = PathBuf::new(),
        /// When a new file begins: `hourly`, `daily` or `never`. The date is put behind the file's stem.
        pub rotation: Rotation = Rotation::Daily,
        /// How many files stay, the newest included.
        pub keep: usize [Bounded(1, 10_000)] = 7,
    }
}

words! {
    /// How log lines look.
    pub enum LogFormat {
        /// Text on a terminal, JSON otherwise.
        Auto = "auto",
        /// Text.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

words! {
    /// When a new log file begins.
    pub enum Rotation {
        /// Each hour.
        Hourly = "hourly",
        /// Each day.
        Daily = "daily",
        /// Never.
        Never = "never",
    }
}

section! {
    /// How the node ends.
    pub struct Drain {
        /// Readiness is red for so long before anything closes.
        pub wait: Duration = Duration::from_secs(5),
        /// Per cent of the connections closed in each step of 500 ms.
        pub step_percent: u32 [Bounded(1, 100)] = 5,
        /// The whole drain takes no longer.
        pub grace: Duration = Duration::from_secs(30),
    }
}

impl Listener {
    /// What the node listens on when nothing says otherwise.
    fn plain() -> Self {
        let serves = vec![Service::Ws, Service::Api, Service::Metrics];
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            dialect: dialect_of(Some(&serves)),
            origins: origins_of(Some(&serves)),
            devices: devices_of(Some(&serves)),
            serves,
            query_token: true,
            tls: None,
        }
    }

    /// Whether it serves `service`.
    #[must_use]
    pub fn has(&self, service: Service) -> bool {
        self.serves.contains(&service)
    }
}

impl ApiKey {
    /// Whether it may use that part of the API.
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }
}

fn is_cim(serves: Option<&[Service]>) -> bool {
    serves.is_some_and(|serves| serves.contains(&Service::Cim) || serves.contains(&Service::CimTcp))
}

fn dialect_of(serves: Option<&[Service]>) -> Dialect {
    if is_cim(serves) { Dialect::Cim } else { Dialect::Yunque }
}

fn devices_of(serves: Option<&[Service]>) -> DevicePolicy {
    if is_cim(serves) { DevicePolicy::Cim } else { DevicePolicy::AllowAll }
}

/// A page that uses CIM's SDK dials another port than its own, so same-origin would be wrong there.
fn origins_of(serves: Option<&[Service]>) -> Vec<String> {
    vec![if is_cim(serves) { "same-host" } else { "same-origin" }.to_owned()]
}

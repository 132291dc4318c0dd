//! The configuration tree: typed, with the default and the description of each key beside its field.
//!
//! [`load`] reads files and variables. `check` holds rules that concern several keys. `config/skylark.yaml` lists every
//! key with its default and its description; a test here compares it with this file. This module does not know the use
//! of the values.

mod changes;
mod check;
mod credential;
mod keys;
mod live;
pub mod load;
#[macro_use]
mod section;
mod bus;
mod history;
mod intakes;
mod listener;
mod properties;
mod read;
mod rooms;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::id::{MAX_NODE_NUMBER, NodeId};

pub use bus::{Bus, BusKind, KafkaConfig, RedisConfig};
pub use changes::Changes;
pub use credential::Credential;
pub use history::{Fsync, History, HistoryKind, HistoryRule, Journal, Keep, OnFailure, RuleBounds, StreamBounds};
pub use intakes::{Intake, IntakeKind, intake_names};
pub use keys::{Key, keys, reference};
pub use listener::{DevicePolicy, Listener, Service, TlsFiles};
pub use live::LiveConfig;
pub use load::{Entry, Examined, GuardedFile, Loaded, Loader, Reloaded};
pub use properties::Properties;
pub use read::fault::{ConfigError, Fault};
pub use read::value::ValueSource;
pub use rooms::OpenRooms;

use read::{Bounded, Bytes, Secret};

section! {
    /// The whole tree.
    pub struct Config {
        /// Identity of this node.
        pub node: NodeConfig,
        /// Addresses on which the node listens, and their services. A list in a later file replaces the whole earlier
        /// list.
        pub listeners: Vec<Listener> = vec![Listener::plain()],
        /// Permissions of clients.
        pub clients: Clients,
        /// Liveness of connections.
        pub heartbeat: Heartbeat,
        /// Bounds on input.
        pub limits: Limits,
        /// Bounds on output.
        pub queue: Queue,
        /// The push API.
        pub api: ApiSettings,
        /// The plugin directory.
        pub plugins: Plugins,
        /// Communication between nodes.
        pub bus: Bus,
        /// Messages kept for clients that come back.
        pub history: History,
        /// Topics from which back ends publish, besides the push API.
        pub intakes: Vec<Intake> = Vec::new(),
        /// Several nodes on one bus.
        pub cluster: Cluster,
        /// Logs.
        pub log: Log,
        /// Shutdown of the node.
        pub drain: Drain,
    }
}

section! {
    /// Identity of this node.
    pub struct NodeConfig {
        /// Name among the nodes that share a broker (`Sid` in an envelope). Default: the host name.
        pub id: NodeId = NodeId::parse("n1").expect("a valid name") => "the host's name, or n1",
        /// Number inside connection and message ids, 0–4095, different on each node.
        pub number: u16 [Bounded(0, MAX_NODE_NUMBER as u64)] = 1,
        /// Address that clients receive in the bind reply; empty = the listener's own.
        pub address: String = String::new(),
        /// Folder that stores the bound of this node's ids over restarts if the bus is `memory`; created if missing. If
        /// it is empty or not writable, ids start from the clock and a warning is logged at the start.
        pub state: PathBuf = PathBuf::from("state"),
        /// Hub shards; 0 = one per core.
        pub shards: usize [Bounded(0, 1024)] = 0,
    }
}

section! {
    /// Permissions of clients.
    pub struct Clients {
        /// Allows clients to send `message` to users and to rooms that they joined.
        #[live]
        pub publish: bool = false,
        /// Maximum number of rooms of one connection.
        #[live]
        pub rooms: usize [Bounded(1, 10_000)] = 100,
        /// Rooms that any bound client may join: names, or prefixes that end with `*`; `["*"]` opens all. Plugins of
        /// the role `access` are asked first.
        #[live]
        pub open_rooms: OpenRooms = OpenRooms::default(),
    }
}

section! {
    /// Liveness checks by the server.
    pub struct Heartbeat {
        /// Time without a write after which a PING is sent; one CIM client gives up at 30s.
        pub interval: Duration = Duration::from_secs(25),
        /// Unanswered PINGs allowed; one more closes the connection with 4000.
        pub max_missed: u32 [Bounded(1, 100)] = 2,
    }
}

section! {
    /// Bounds on input.
    pub struct Limits {
        /// Maximum live connections of the node.
        pub connections: usize [Bounded(1, 100_000_000)] = 100_000,
        /// Maximum live connections of one address; 0 = no bound.
        #[live]
        pub connections_per_ip: usize [Bounded(0, 100_000_000)] = 1_000,
        /// Connection attempts of one address per second, with a burst of ten times that; 0 = no bound. API requests do
        /// not count, except that on a TLS listener each accepted connection does.
        #[live]
        pub connects_per_ip: u32 [Bounded(0, 1_000_000)] = 50,
        /// Time allowed for the head of a request and for the TLS and WebSocket handshakes.
        #[live]
        pub handshake: Duration = Duration::from_secs(5),
        /// Time allowed for the first frame on a listener that waits for one.
        #[live]
        pub first_frame: Duration = Duration::from_secs(10),
        /// Time allowed for the bind after connect.
        #[live]
        pub unbound: Duration = Duration::from_secs(45),
        /// Maximum time that handlers may keep a connection unbound, counted from connect.
        #[live]
        pub unbound_max: Duration = Duration::from_secs(300),
        /// Idle time of an HTTP connection between requests; use more than the idle time of a proxy's pool.
        #[live]
        pub keep_alive: Duration = Duration::from_secs(75),
        /// Time allowed for a whole message or body after its first byte.
        #[live]
        pub message_timeout: Duration = Duration::from_secs(10),
        /// Maximum size of a frame and a message from a client.
        #[live]
        pub frame_bytes: usize [Bytes(1 << 10, 16 << 20)] = 64 << 10,
        /// Maximum size of a request body.
        #[live]
        pub body_bytes: usize [Bytes(1 << 10, 64 << 20)] = 1 << 20,
        /// Maximum number of messages in one request.
        #[live]
        pub batch: usize [Bounded(1, 10_000)] = 500,
        /// Maximum number of users in one request.
        #[live]
        pub uids: usize [Bounded(1, 1_000_000)] = 10_000,
        /// Concurrent auth calls, and separately concurrent access calls; further calls wait.
        pub auth_calls: usize [Bounded(1, 100_000)] = 64,
    }
}

section! {
    /// Bounds on output.
    pub struct Queue {
        /// Bytes queued for one connection; more closes it as a slow consumer.
        pub bytes: usize [Bytes(64 << 10, 1 << 30)] = 1 << 20,
        /// Frames queued for one connection; more closes it as a slow consumer.
        pub frames: usize [Bounded(16, 1_000_000)] = 4_096,
        /// A connection that accepts no byte for this long is closed as a slow consumer.
        pub write_timeout: Duration = Duration::from_secs(10),
        /// Commands queued for one shard.
        pub mailbox: usize [Bounded(16, 1_000_000)] = 1_024,
    }
}

section! {
    /// The push API.
    pub struct ApiSettings {
        /// Keys of the callers. An empty list is allowed only on loopback addresses, or with `insecure`.
        #[live]
        pub keys: Vec<ApiKey> = Vec::new(),
        /// Allows an API without keys on an address that is not loopback.
        #[live]
        pub insecure: bool = false,
    }
}

item! {
    /// One caller of the API.
    pub struct ApiKey {
        /// Name of the caller in the log; empty = the position of the key, such as `#2`.
        pub name: Arc<str>,
        /// The secret, as sent in `Authorization: Bearer` or `X-Api-Key`; at least 16 bytes, best as `{file: …}` or
        /// `{env: …}`.
        pub key: String [Secret(16)],
        /// Permissions: `push` (send, publish), `read` (lists, counts), `manage` (rooms, kick), `plugins` (enable,
        /// disable, reload, rollback, log).
        pub scopes: Vec<Scope> = Scope::ALL.to_vec() => "all four",
    }
}

keywords! {
    /// A part of the API.
    pub enum Scope {
        /// `/send…`, `/publish`.
        Push = "push",
        /// Lists, counts, plugins, nodes.
        Read = "read",
        /// Rooms, kick.
        Manage = "manage",
        /// Commands to plugins, and the plugin log.
        Plugins = "plugins",
    }
}

impl Scope {
    /// Every scope. A key without a list of scopes has them all.
    pub const ALL: [Self; 4] = [Self::Push, Self::Read, Self::Manage, Self::Plugins];
}

section! {
    /// The plugin directory.
    pub struct Plugins {
        /// Directory of the `.wasm` and `.toml` files, relative to the working directory; empty = no plugins, so no
        /// client is admitted.
        pub dir: PathBuf = PathBuf::new(),
        /// Directory of compiled plugins, kept between runs and readable by the owner only; empty = none.
        pub cache: PathBuf = PathBuf::new(),
        /// Bytes of compiled code in the cache; the least recently used is removed first. The versions kept for
        /// rollbacks have a second budget of the same size.
        pub cache_bytes: usize [Bytes(1 << 20, 1 << 40)] = 512 << 20,
        /// Limits on compiling one plugin in its own process; a file that exceeds them is refused.
        pub compile: CompileLimits,
        /// Storage of the plugins' keys (`kv`): `memory`, or a file of this node as a path with a slash such as
        /// `./state/kv.redb`. `memory` is lost when the node ends, except that with a Redis bus the keys are in Redis,
        /// for all nodes. With a Kafka bus each node has its own keys.
        pub kv: KvLocation = KvLocation::Memory,
        /// A file is read once it has not changed for this long. It counts as deleted after this time, but at least
        /// three seconds.
        pub settle: Duration = Duration::from_millis(150),
        /// Interval of full scans of the directory, besides the file watcher.
        pub rescan: Duration = Duration::from_secs(5),
        /// Auth plugins and fail-closed filters that may be removed; the removal of any other blocks admissions or
        /// messages.
        #[live(|old, new| old.dir == new.dir)]
        pub allow_remove: Vec<String> = Vec::new(),
        /// PEM file of certificates that plugins' requests trust besides the system's; empty = none.
        pub http_ca: PathBuf = PathBuf::new(),
        /// Requires each manifest to pin its file (`sha256 = "…"`). A pin is always verified, even without this option.
        #[live(|old, new| old.dir == new.dir)]
        pub require_hash: bool = false,
        /// Ed25519 public keys, base64. If any is listed, each file must be signed by one of them, in `NAME.wasm.sig`
        /// beside it.
        #[live(|old, new| old.dir == new.dir)]
        pub signing_keys: Vec<String> = Vec::new(),
        /// Maximum number of live instances over all plugins.
        pub instances: u32 [Bounded(1, 10_000)] = 256,
        /// Maximum lag of the ticks that bound the time of plugins; beyond it the node reports that it is not ready.
        pub ticker_lag: Duration = Duration::from_secs(1),
        /// Upper bounds of the limits in manifests (`[limits]`). A manifest that exceeds one is refused at load; a
        /// larger default is lowered.
        pub caps: PluginCaps,
        /// Pauses the calls of a plugin that fails repeatedly.
        pub breaker: Breaker,
        /// Probation of a new version, during which the previous version stays available.
        pub probation: Probation,
    }
}

/// Storage of the plugins' keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum KvLocation {
    /// In this process's memory.
    #[default]
    Memory,
    /// In a file of this node.
    File(PathBuf),
}

section! {
    /// Upper bounds of the limits in manifests.
    pub struct PluginCaps {
        /// CPU time of one call inside the guest.
        pub cpu: Duration = Duration::from_secs(1),
        /// Wall-clock time of one call, from start to answer.
        pub wall: Duration = Duration::from_secs(30),
        /// Bytes of memory and tables of one instance.
        pub memory: usize [Bytes(1 << 20, 4 << 30)] = 512 << 20,
        /// Table elements of one instance.
        pub tables: usize [Bounded(16, 10_000_000)] = 65_536,
        /// Handles held by one instance, its own resources and the host's.
        pub handles: usize [Bounded(16, 10_000_000)] = 65_536,
        /// Live instances of one plugin.
        pub instances: usize [Bounded(1, 10_000)] = 256,
        /// Calls after which an instance is replaced.
        pub recycle: usize [Bounded(1, 1_000_000_000)] = 10_000_000,
        /// Bytes that one call passes to the node.
        pub host_bytes: usize [Bytes(4 << 10, 1 << 30)] = 64 << 20,
        /// Bytes that one call logs.
        pub log_bytes: usize [Bytes(0, 64 << 20)] = 1 << 20,
        /// Bytes that a plugin logs per second, over all its calls.
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
    /// Limits on compiling one plugin in its own process.
    pub struct CompileLimits {
        /// Memory; a Python guest takes about 500MiB.
        pub memory: usize [Bytes(16 << 20, 64 << 30)] = 1 << 30,
        /// CPU time, whole seconds.
        pub cpu: Duration = Duration::from_secs(60),
        /// Wall-clock time. Compiling has the lowest priority, so it takes long on a busy machine.
        pub wall: Duration = Duration::from_secs(300),
    }
}

section! {
    /// Circuit breaker: while it is open, calls are not made and get the failure answer of the role.
    pub struct Breaker {
        /// Failures of the guest that open the circuit, among at most twice as many successive calls. They must affect
        /// at least three sources and more than half of those seen lately.
        pub failures: usize [Bounded(1, 10_000)] = 10,
        /// Time that the circuit stays open. Then one call is let through, and its answer closes the circuit. A source
        /// whose calls alone fail is set apart for the same time.
        pub rest: Duration = Duration::from_secs(5),
    }
}

section! {
    /// Probation of a new version: the previous version is restored if the new one's circuit opens.
    pub struct Probation {
        /// Minimum number of calls.
        pub calls: u64 [Bounded(0, 1_000_000_000)] = 1_000,
        /// Minimum time. With few calls, probation ends after twenty times this time, but at least ten minutes.
        pub time: Duration = Duration::from_secs(30),
    }
}

section! {
    /// Several nodes on one bus.
    pub struct Cluster {
        /// Property that selects a client's node (`/nodes/choose`, `next` of the bind reply): `uid` (the user) or `ip`
        /// (the address).
        pub choose_by: ChooseBy = ChooseBy::Uid,
        /// Maximum time that a list, a room change or a kick waits for the other nodes. The answer names the nodes that
        /// did not reply.
        pub reply_timeout: Duration = Duration::from_millis(500),
    }
}

keywords! {
    /// Property that selects a client's node.
    pub enum ChooseBy {
        /// The user.
        Uid = "uid",
        /// The address.
        Ip = "ip",
    }
}

section! {
    /// Logs.
    pub struct Log {
        /// Log filter: a level (`trace`, `debug`, `info`, `warn`, `error`, `off`), then levels of modules, separated by
        /// commas, e.g. `info,skylark::plugin=debug`.
        #[live]
        pub level: String = "info".to_owned(),
        /// Format on standard error: `auto` (text on a terminal, JSON otherwise), `text` or `json`.
        pub format: LogFormat = LogFormat::Auto,
        /// Log file besides standard error, always JSON; empty = none.
        pub file: PathBuf = PathBuf::new(),
        /// Rotation of the file: `hourly`, `daily` or `never`. The date is added after the file's stem.
        pub rotation: Rotation = Rotation::Daily,
        /// Number of files kept, the newest included.
        pub keep: usize [Bounded(1, 10_000)] = 7,
    }
}

keywords! {
    /// Format of log lines.
    pub enum LogFormat {
        /// Text on a terminal, JSON otherwise.
        Auto = "auto",
        /// Text.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

keywords! {
    /// Rotation of the log file.
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
    /// Shutdown of the node.
    pub struct Drain {
        /// Time that readiness is red before the first connection is closed.
        #[live]
        pub wait: Duration = Duration::from_secs(5),
        /// Per cent of the connections closed in each step of 500 ms.
        #[live]
        pub step_percent: u32 [Bounded(1, 100)] = 5,
        /// Maximum time of the whole drain.
        #[live]
        pub grace: Duration = Duration::from_secs(30),
    }
}

impl ApiKey {
    /// True if the key may use that part of the API.
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }
}

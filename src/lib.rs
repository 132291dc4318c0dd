//! Skylark (云雀): a WebAssembly-extensible real-time message gateway.
//!
//! A message enters by an *ingress*, is judged once by the *plugins*, travels by the *broker*, and is handed
//! by each node's *hub* to its *shards*, which write once per connection:
//!
//! ```text
//! ingress (ws | tcp | http | intake) ─ Envelope ▶ Node::publish ─▶ PluginHost (filter chain, once per publish) ─▶ Broker::publish
//!   every node, this one too:  Broker ── batch ──▶ Node::deliver ─ encode once per dialect ─▶ Hub ─ one batch per shard ─▶
//!                              mailbox ─▶ SendQueue per connection, dirty list ─▶ flush(connection) ─▶ socket
//! ```
//!
//! The unit everywhere is a *batch* of envelopes: one HTTP list or one broker poll reaches each shard as one.
//! Modules stand in layer order, and a module imports lower layers only (`tests/tidy.rs` holds it).

// L0: the words everything else is said in.
pub mod authority;
pub mod claim;
pub mod disconnect;
pub mod id;
pub mod message;

// L1: pure; no socket, no clock of its own.
pub mod config;
pub mod protocol;
pub mod session;

// Importable from L2 up.
pub mod backoff;
pub mod clock;
pub mod telemetry;
pub mod trust;
pub mod vital;

// L2: three siblings that do not know each other.
pub mod broker;
pub mod hub;
pub mod plugin;

// L3: the only place that sees them together.
pub mod node;

// L4: the ways in and out.
pub mod server;

// L5: composition, and the command line on top of it.
pub mod app;
pub mod cli;

//! Skylark (云雀): a WebAssembly-extensible real-time message gateway.
//!
//! A message enters through an *ingress*. The *plugins* judge it once, the *broker* carries it to every node, and the
//! *hub* of each node hands it to its *shards*. A shard writes once per connection:
//!
//! ```text
//! ingress (ws | tcp | http | intake) ─ Envelope ▶ Node::publish ─▶ PluginHost (filter chain, once per publish) ─▶ Broker::publish
//!   every node, this one too:  Broker ── batch ──▶ Node::deliver ─ encode once per dialect ─▶ Hub ─ one batch per shard ─▶
//!                              mailbox ─▶ SendQueue per connection, dirty list ─▶ flush(connection) ─▶ socket
//! ```
//!
//! The unit everywhere is a *batch* of envelopes: one HTTP list or one broker poll reaches each shard as one. Modules
//! are listed in layer order. A module imports lower layers only (`tests/tidy.rs` checks it).

// L0: shared vocabulary.
pub mod authority;
pub mod claim;
pub mod code;
pub mod disconnect;
pub mod id;
pub mod message;

// L1: pure; no socket, no clock.
pub mod config;
pub mod fate;
pub mod protocol;
pub mod session;

// Importable from L2 up.
pub mod allocator;
pub mod backoff;
pub mod clock;
pub mod owners;
pub mod telemetry;
pub mod trust;
pub mod vital;

// L2: three siblings that do not import each other.
pub mod broker;
pub mod hub;
pub mod plugin;

// L3: combines the three.
pub mod node;

// L4: network input and output.
pub mod server;

// L5: composition and the command line.
pub mod app;
pub mod cli;

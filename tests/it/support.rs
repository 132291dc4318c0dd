//! What the integration tests stand on: the node as a process, a client, an HTTP caller, tokens, guests.

pub mod acts;
pub mod bus;
pub mod client;
pub mod cluster;
pub mod dice;
pub mod gateway;
pub mod http;
pub mod kafka;
pub mod ledger;
pub mod proxy;
pub mod publishers;
pub mod redis;
pub mod resp;
pub mod terminals;
pub mod tls;
pub mod token;
pub mod weather;
pub mod wire;

use serde_json::Value;

/// The document's own push, byte for byte.
pub const PUSH_SAMPLE: &str = include_str!("../vectors/push-sample.json");

pub fn push_sample() -> Value {
    serde_json::from_str(PUSH_SAMPLE).unwrap()
}

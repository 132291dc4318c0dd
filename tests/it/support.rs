//! Shared support of the integration tests: node processes, clients, an HTTP caller, tokens, and test plugins.

pub mod acts;
pub mod brokers;
pub mod client;
pub mod dice;
pub mod gateway;
pub mod http;
pub mod ledger;
pub mod proxy;
pub mod publishers;
pub mod terminals;
pub mod tls;
pub mod token;
pub mod wire;

use serde_json::Value;

/// The sample push of the documents, byte for byte.
pub const PUSH_SAMPLE: &str = include_str!("../vectors/push-sample.json");

pub fn push_sample() -> Value {
    serde_json::from_str(PUSH_SAMPLE).unwrap()
}

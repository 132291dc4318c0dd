//! Everything over Kafka. librdkafka's types stay here.
//!
//! Knows no connection and no plugin. How it keeps the contracts, and where it cannot: docs/decisions/0011.

mod link;
mod source;

pub use link::Link;
pub use source::KafkaSource;

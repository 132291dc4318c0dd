//! The contracts of brokers and stores, and the specifics of Redis and Kafka, each on the real server.

mod broker_contract;
mod kafka;
mod redis;
mod store_contract;

//! Black-box tests of the node: the built binary, real sockets, and a client that shares no code with it.
//!
//! One test binary, one file for each behaviour. No test sleeps: every wait is for an event and has a limit.

#![allow(unreachable_pub, reason = "a test binary has no outside")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

mod authoring;
mod broker_contract;
mod bus_copies;
mod calls;
mod cluster;
mod commands;
mod compile;
mod connect;
mod delivery;
mod descriptors;
mod devices;
mod documents;
mod drills;
mod envelope;
mod examples;
mod faults;
mod filters;
mod harness;
mod heads;
mod heartbeat;
mod holders;
mod hostile;
mod hostile_clients;
mod hostile_plugins;
mod ids;
mod intake;
mod interfaces;
mod jwks;
mod kafka_check;
mod kafka_identity;
mod kafka_login;
mod kafka_source;
#[cfg(feature = "kafka-tls")]
mod kafka_tls;
mod kafka_unreadable;
mod life;
mod limits;
mod load;
mod numbers;
mod owners;
mod pings;
mod pins;
mod push;
mod qr_login;
mod reconfigure;
mod redis_bus;
mod redis_failover;
mod reloads;
mod rooms;
mod secrets;
mod state;
mod store_contract;
mod swap;
mod tls;
mod tls_clients;
mod trials;
mod vectors;
mod weather;

//! Black-box tests of the node: the built binary, real sockets, and a client that shares no code with it.
//!
//! One test binary, one folder for each subject, one file for each behaviour. No test sleeps: every wait is for an
//! event and has a limit.

#![allow(unreachable_pub, reason = "a test binary has no outside")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

mod api;
mod brokers;
mod clients;
mod cluster;
mod documents;
mod drills;
mod fuzz;
mod harness;
mod intake;
mod node;
mod plugins;
mod samples;
mod tls;

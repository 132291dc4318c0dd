//! The ways in and out: listeners, WebSocket and TCP connections, the push API, metrics.
//!
//! Calls the node only. hyper and tungstenite live in the modules below and show in no signature of another layer.

pub mod api;

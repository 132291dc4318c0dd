//! The load: the generator, the messages and their receivers, and the protocols of publishers.

pub(super) mod api;
pub(super) mod drive;
pub(super) mod generator;
pub(super) mod payload;
pub(super) mod stuck;
pub(super) mod traffic;
pub(super) mod websocket;
pub(super) mod wire;

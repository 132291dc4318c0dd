//! The cells, one file per question.

pub(super) mod allocations;
pub(super) mod cluster;
pub(super) mod connect;
pub(super) mod dialects;
pub(super) mod fan_out;
pub(super) mod history;
pub(super) mod idle;
pub(super) mod latency;
pub(super) mod linearity;
pub(super) mod plugins;
pub(super) mod rooms;
pub(super) mod skip;
pub(super) mod slow;
pub(super) mod tls;
pub(super) mod unicast;

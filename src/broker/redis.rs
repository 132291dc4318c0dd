//! Redis as the engine of the bus. All types of the `redis` crate and all keys, channels and scripts stay in this
//! module.
//!
//! [`RedisEngine`] is the entry point: one client for the server, used by the bus, the roster and the plugin store. The
//! layout and its reasons: `docs/decisions/0010-the-bus-over-redis.md`.

mod bus;
pub mod check;
pub mod client;
mod connection;
mod ids;
mod intake;
mod kv;
mod names;
mod roster;
mod server;
mod wire;

use std::sync::Arc;

use super::Deliver;
use crate::config::Config;
use crate::vital::Vitals;

pub use bus::RedisBus;
pub use client::{Client, UrlError};
pub use ids::RedisIds;
pub use intake::{ChannelSettings, ChannelSource, StreamSettings, StreamSource, check_channel, check_stream};
pub use kv::{RedisSpaces, SpaceStep, SpaceWrite, StepResult};
pub use roster::RedisRoster;
pub use server::Servers;

use names::Names;

/// Redis implementations of one node.
pub struct RedisEngine {
    /// Bus between nodes.
    pub bus: Arc<RedisBus>,
    /// Membership of the cluster.
    pub roster: Arc<RedisRoster>,
    /// Key-value store of plugins.
    pub spaces: Arc<RedisSpaces>,
    /// Store of id reservations.
    pub ids: Arc<RedisIds>,
    /// Client of the server.
    pub client: Arc<Client>,
}

impl RedisEngine {
    /// Starts the engine as configured, delivers to `receiver` and registers its tasks in `vitals`. Redis need not be
    /// reachable: calls that depend on it wait and report it as unavailable.
    ///
    /// # Errors
    /// [`UrlError`]: the server address is invalid.
    pub fn start(
        config: &Config,
        servers: &Servers,
        receiver: Arc<dyn Deliver>,
        vitals: &Vitals,
    ) -> Result<Self, UrlError> {
        let client = servers.client(&config.bus.redis)?;
        let roster = Arc::new(RedisRoster::new(Arc::clone(&client), Names::new(&config.bus.prefix)));
        let bus = Arc::new(RedisBus::start(config, Arc::clone(&client), Arc::clone(&roster), receiver, vitals));
        let spaces = Arc::new(RedisSpaces::new(Arc::clone(&client), Names::new(&config.bus.prefix)));
        let ids = Arc::new(RedisIds::new(Arc::clone(&client), &Names::new(&config.bus.prefix)));
        Ok(Self { bus, roster, spaces, ids, client })
    }
}

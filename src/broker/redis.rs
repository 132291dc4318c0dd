//! Redis as the engine of the bus: every type of the `redis` crate and every key, channel and script stays in here.
//!
//! [`RedisEngine`] is the front: one way to the server, on it the bus, the roster and the store of plugins. How it is laid
//! out and why: `docs/decisions/0010-the-bus-over-redis.md`.

mod bus;
mod channel;
pub mod check;
pub mod check_intake;
pub mod client;
mod connection;
mod dead;
mod fate;
mod health;
mod ids;
mod inbox;
mod lease;
mod member;
mod names;
mod outbox;
mod process;
mod publisher;
mod receipts;
mod roster;
mod server;
mod spaces;
mod stream;
mod streams;
mod subscriber;
mod wire;

use std::sync::Arc;

use super::Deliver;
use crate::config::Config;
use crate::vital::Vitals;

pub use bus::RedisBus;
pub use channel::{Channel, ChannelSettings};
pub use client::{Client, UrlError};
pub use ids::RedisIds;
pub use roster::RedisRoster;
pub use server::Servers;
pub use spaces::{RedisSpaces, SpaceStep, SpaceWrite, Step};
pub use stream::{Stream, StreamSettings};

use names::Names;

/// One node's ends of everything that Redis carries.
pub struct RedisEngine {
    /// Node to node.
    pub bus: Arc<RedisBus>,
    /// Who belongs to the cluster.
    pub roster: Arc<RedisRoster>,
    /// What plugins keep.
    pub spaces: Arc<RedisSpaces>,
    /// What reserves ids.
    pub ids: Arc<RedisIds>,
    /// The way to the server.
    pub client: Arc<Client>,
}

impl RedisEngine {
    /// As `config` says, receiving for `receiver`, with its tasks registered in `vitals`. Redis need not be there: what has to wait for it waits, and says so.
    ///
    /// # Errors
    /// [`UrlError`]: the server cannot be named.
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

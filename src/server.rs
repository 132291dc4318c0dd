//! The ways in and out: listeners, WebSocket and TCP connections, the push API, metrics.
//!
//! Calls the node only. hyper and tungstenite live in the modules below and show in no signature of another layer.

pub mod api;

mod admission;
mod connection;
mod credentials;
mod listener;
mod origin;
mod socket;
mod tasks;
mod tcp;
mod upgrade;
mod ws;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::config::{Config, Listener, Service};
use crate::node::Node;
use admission::Admission;
use api::Api;
use tasks::Tasks;

/// The listeners of a node, accepting.
pub struct Server {
    addresses: Vec<Address>,
    gateway: Arc<Gateway>,
}

/// Where one listener really listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Address and port; never port 0.
    pub address: SocketAddr,
    /// What it serves.
    pub serves: Vec<Service>,
}

/// Why the node cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address that cannot be had.
    #[error("listeners: cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
}

impl Server {
    /// Binds every listener of `config`, then starts to accept on all of them.
    ///
    /// # Errors
    /// [`StartError`] names the first address that cannot be had; none accepts then.
    pub fn start(config: Arc<Config>, node: Arc<Node>, api: Arc<Api>) -> Result<Self, StartError> {
        let listeners = config.listeners.iter().map(listener::bind).collect::<Result<Vec<_>, _>>()?;
        let mut addresses = Vec::with_capacity(listeners.len());
        for (listener, config) in listeners.iter().zip(&config.listeners) {
            let address = listener.local_addr().unwrap_or(config.address);
            addresses.push(Address { address, serves: config.serves.clone() });
        }
        let gateway = Arc::new(Gateway {
            node,
            api,
            admission: Admission::new(&config.limits),
            config: ArcSwap::new(config),
            tasks: Tasks::default(),
            stop: watch::Sender::new(false),
        });
        for (at, listener) in listeners.into_iter().enumerate() {
            listener::spawn(&gateway, listener, at);
        }
        Ok(Self { addresses, gateway })
    }

    /// Where each listener really listens, in the order of the config.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Takes the limits, origins, device policies and rights of `config` from now on.
    ///
    /// Addresses, and what is served where, stay as they were at the start: if those of `config` differ, all of its
    /// listeners are left out.
    pub fn reconfigure(&self, config: &Arc<Config>) {
        let now = self.gateway.config.load();
        let place = |l: &Listener| (l.address, l.serves.clone());
        let same = now.listeners.iter().map(place).eq(config.listeners.iter().map(place));
        self.gateway.admission.reconfigure(&config.limits);
        self.gateway.config.store(match same {
            true => Arc::clone(config),
            false => Arc::new(Config { listeners: now.listeners.clone(), ..(**config).clone() }),
        });
    }

    /// No new connection from now on; HTTP connections end with the request that is under way.
    ///
    /// WebSocket and TCP connections live on until the node closes them.
    pub fn stop_accepting(&self) {
        self.gateway.stop.send_replace(true);
    }

    /// Returns when every task of the listeners and connections has ended. Call [`Server::stop_accepting`] before.
    pub async fn stopped(&self) {
        self.gateway.tasks.all_ended().await;
    }
}

/// What every way in shares.
struct Gateway {
    node: Arc<Node>,
    api: Arc<Api>,
    config: ArcSwap<Config>,
    admission: Admission,
    tasks: Tasks,
    /// Becomes `true` once.
    stop: watch::Sender<bool>,
}

/// Returns once the gateway stops, or is gone.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The guard that comes back must not live on: it is no `Send`.
    drop(stop.wait_for(|stop| *stop).await);
}

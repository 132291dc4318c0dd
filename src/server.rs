//! The ways in and out: listeners, WebSocket and TCP connections, the push API, intakes, metrics.
//!
//! Calls the node only. hyper and tungstenite live in the modules below and show in no signature of another layer.

pub mod api;
pub mod intake;

mod claim;
mod connection;
mod descriptors;
mod listener;
mod origin;
mod peers;
mod socket;
mod tasks;
mod tcp;
mod tls;
mod upgrade;
mod ws;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::{Config, Limits, Listener, Service};
use crate::node::Node;
use crate::protocol::push;
use crate::vital::Vitals;
use api::Api;
pub use descriptors::Descriptors;
use listener::Door;
use peers::Peers;
use tasks::Tasks;
use tls::Certificate;
pub use tls::{TlsError, faults as tls_faults};

/// The addresses of a node: taken, but nothing is accepted yet.
pub struct Listeners {
    sockets: Vec<TcpListener>,
    /// `None` where a listener is plain.
    certificates: Vec<Option<Arc<Certificate>>>,
    addresses: Vec<Address>,
}

/// A node's ways in, accepting.
pub struct Server {
    gateway: Arc<Gateway>,
}

/// Where one listener really listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Address and port; never port 0.
    pub address: SocketAddr,
    /// What it serves.
    pub serves: Vec<Service>,
    /// Whether it serves that over TLS.
    pub is_tls: bool,
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
    /// A certificate that cannot be used.
    #[error("listeners: no TLS on {address}: {source}")]
    Tls {
        /// The listener's address.
        address: SocketAddr,
        /// Why.
        source: Box<TlsError>,
    },
}

impl Listeners {
    /// Takes every address of `config`, and reads every certificate.
    ///
    /// # Errors
    /// [`StartError`] names the first address that cannot be had, or whose certificate cannot be used.
    pub fn bind(config: &Config) -> Result<Self, StartError> {
        let certificate = |listener: &Listener| {
            let unfit = |source| StartError::Tls { address: listener.address, source: Box::new(source) };
            Certificate::of(listener).map_err(unfit)
        };
        let certificates = config.listeners.iter().map(certificate).collect::<Result<Vec<_>, _>>()?;
        let sockets = config.listeners.iter().map(listener::bind).collect::<Result<Vec<_>, _>>()?;
        let address = |(socket, config): (&TcpListener, &Listener)| Address {
            address: socket.local_addr().unwrap_or(config.address),
            serves: config.serves.clone(),
            is_tls: config.tls.is_some(),
        };
        let addresses = sockets.iter().zip(&config.listeners).map(address).collect();
        Ok(Self { sockets, certificates, addresses })
    }

    /// Where each listener really listens, in the order of the config.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }
}

impl Server {
    /// Accepts on all `listeners` from now on; `config` is the one they were bound by. Tasks are registered in `vitals`.
    #[must_use]
    pub fn start(listeners: Listeners, config: Arc<Config>, node: Arc<Node>, api: Arc<Api>, vitals: &Vitals) -> Self {
        let gateway = Arc::new(Gateway {
            node,
            api,
            peers: Peers::new(&config.limits),
            descriptors: Descriptors::now(),
            config: ArcSwap::new(config),
            tasks: Tasks::default(),
            stop: watch::Sender::new(false),
        });
        tls::renew(&gateway, listeners.certificates.iter().flatten().cloned().collect(), vitals);
        for (at, (socket, certificate)) in listeners.sockets.into_iter().zip(listeners.certificates).enumerate() {
            listener::spawn(&gateway, Door { socket, certificate, at }, vitals);
        }
        Self { gateway }
    }

    /// Takes the limits, origins, device policies and rights of `config` from now on.
    ///
    /// Addresses, what is served where, and the files of certificates must be as they were at the start
    /// ([`Config::with_live`] sees to it).
    pub fn reconfigure(&self, config: &Arc<Config>) {
        self.gateway.peers.reconfigure(&config.limits);
        self.gateway.config.store(Arc::clone(config));
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
    peers: Peers,
    /// As they were at the start.
    descriptors: Descriptors,
    tasks: Tasks,
    /// Becomes `true` once.
    stop: watch::Sender<bool>,
}

/// What one body of a back end may hold, whichever way it comes.
fn bounds(limits: &Limits) -> push::Limits {
    push::Limits { bytes: limits.body_bytes, messages: limits.batch, uids: limits.uids }
}

/// Returns once the gateway stops, or is gone.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The guard that comes back must not live on: it is no `Send`.
    drop(stop.wait_for(|stop| *stop).await);
}

//! Network input and output: listeners, WebSocket and TCP connections, the push API, intakes, metrics.
//!
//! Depends on the node only. hyper and tungstenite are private to the modules below; no signature of another layer has
//! their types.

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

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::{Config, Limits, Listener, LiveConfig, Service};
use crate::node::Node;
use crate::protocol::push;
use crate::vital::Vitals;
use api::Api;
pub use descriptors::Descriptors;
use listener::BoundListener;
use peers::Peers;
use tasks::Tasks;
use tls::Certificate;
pub use tls::{TlsError, faults as tls_faults};

/// The bound addresses of a node; nothing is accepted yet.
pub struct Listeners {
    sockets: Vec<TcpListener>,
    /// `None` for a plain listener.
    certificates: Vec<Option<Arc<Certificate>>>,
    addresses: Vec<ListenerAddress>,
}

/// The accepting listeners of a node.
pub struct Server {
    gateway: Arc<Gateway>,
}

/// The bound address of one listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerAddress {
    /// ListenerAddress and port; never port 0.
    pub address: SocketAddr,
    /// The services.
    pub serves: Vec<Service>,
    /// True if the services use TLS.
    pub is_tls: bool,
}

/// The node cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be bound.
    #[error("listeners: cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The certificate is unusable.
    #[error("listeners: cannot use TLS on {address}: {source}")]
    Tls {
        /// The listener's address.
        address: SocketAddr,
        /// Details.
        source: Box<TlsError>,
    },
}

impl Listeners {
    /// Binds every address of `config` and reads every certificate.
    ///
    /// # Errors
    /// [`StartError`] names the first address that cannot be bound or has an unusable certificate.
    pub fn bind(config: &Config) -> Result<Self, StartError> {
        let certificate = |listener: &Listener| {
            let unusable = |source| StartError::Tls { address: listener.address, source: Box::new(source) };
            Certificate::of(listener).map_err(unusable)
        };
        let certificates = config.listeners.iter().map(certificate).collect::<Result<Vec<_>, _>>()?;
        let sockets = config.listeners.iter().map(listener::bind).collect::<Result<Vec<_>, _>>()?;
        let address = |(socket, config): (&TcpListener, &Listener)| ListenerAddress {
            address: socket.local_addr().unwrap_or(config.address),
            serves: config.serves.clone(),
            is_tls: config.tls.is_some(),
        };
        let addresses = sockets.iter().zip(&config.listeners).map(address).collect();
        Ok(Self { sockets, certificates, addresses })
    }

    /// The bound address of each listener, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> &[ListenerAddress] {
        &self.addresses
    }
}

impl Server {
    /// Starts accepting on all `listeners`, which must be bound by the `config` of the start. Follows its limits, origins,
    /// device policies and permissions. Tasks are registered in `vitals`.
    #[must_use]
    pub fn start(listeners: Listeners, config: LiveConfig, node: Arc<Node>, api: Arc<Api>, vitals: &Vitals) -> Self {
        let gateway = Arc::new(Gateway {
            node,
            api,
            peers: Peers::default(),
            descriptors: Descriptors::now(),
            config,
            tasks: Tasks::default(),
            stop: watch::Sender::new(false),
        });
        tls::renew(&gateway, listeners.certificates.iter().flatten().cloned().collect(), vitals);
        for (at, (socket, certificate)) in listeners.sockets.into_iter().zip(listeners.certificates).enumerate() {
            listener::spawn(&gateway, BoundListener { socket, certificate, at }, vitals);
        }
        Self { gateway }
    }

    /// Stops accepting. HTTP connections end after their current request.
    ///
    /// WebSocket and TCP connections stay open until the node closes them.
    pub fn stop_accepting(&self) {
        self.gateway.stop.send_replace(true);
    }

    /// Returns when all tasks of listeners and connections have ended. Call [`Server::stop_accepting`] before.
    pub async fn stopped(&self) {
        self.gateway.tasks.all_ended().await;
    }
}

/// State shared by all listeners and connections.
struct Gateway {
    node: Arc<Node>,
    api: Arc<Api>,
    config: LiveConfig,
    peers: Peers,
    /// Measured at the start.
    descriptors: Descriptors,
    tasks: Tasks,
    /// Becomes `true` once.
    stop: watch::Sender<bool>,
}

/// Limits on one body of a back end, for every ingress.
fn bounds(limits: &Limits) -> push::PushLimits {
    push::PushLimits { bytes: limits.body_bytes, messages: limits.batch, uids: limits.uids }
}

/// Returns once the gateway stops or is dropped.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The returned guard must be dropped here, because it is not `Send`.
    drop(stop.wait_for(|stop| *stop).await);
}

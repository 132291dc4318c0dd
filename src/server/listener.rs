//! Accepts connections: binds the addresses, enforces the connection limits, and starts the protocol of the listener.
//!
//! Independent of frames and HTTP; of TLS it knows only that the handshake comes first. Clients are refused while
//! descriptors remain for requests ([`Descriptors`](super::Descriptors)). A listener that cannot accept pauses and
//! retries.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::descriptors::SocketUse;
use super::peers::ConnectionPermit;
use super::socket::MaybeTlsStream;
use super::tls::Certificate;
use super::{Gateway, StartError, stopped, tcp, upgrade};
use crate::config::{Listener, Service};
use crate::telemetry::{may_log, names};
use crate::vital::Vitals;

/// Length of the kernel's accept queue.
const BACKLOG: u32 = 4096;
/// Pause when the process or the system has no file descriptor or memory left.
const RETRY_DELAY: Duration = Duration::from_millis(50);
/// Minimum time between two log lines about a failing accept.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Binds the address; nothing is accepted yet.
pub(super) fn bind(config: &Listener) -> Result<TcpListener, StartError> {
    let address = config.address;
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restarted node can bind the address of its previous process at once.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|source| StartError::Bind { address, source })
}

/// One bound listener.
pub(super) struct BoundListener {
    pub(super) socket: TcpListener,
    /// `None` for a plain listener.
    pub(super) certificate: Option<Arc<Certificate>>,
    /// Index of the listener in the configuration.
    pub(super) at: usize,
}

/// Spawns a task that accepts until the gateway stops.
pub(super) fn spawn(gateway: &Arc<Gateway>, listener: BoundListener, vitals: &Vitals) {
    gateway.tasks.begin();
    let stop = gateway.stop.subscribe();
    let gateway = Arc::clone(gateway);
    let name =
        listener.socket.local_addr().map_or_else(|_| "listener".to_owned(), |address| format!("listener {address}"));
    tokio::spawn(vitals.run(name, async move {
        accept(&gateway, listener, stop).await;
        gateway.tasks.end();
    }));
}

async fn accept(gateway: &Arc<Gateway>, listener: BoundListener, mut stop: watch::Receiver<bool>) {
    let (mut accept_log, mut full_log) = (LogLimit::default(), LogLimit::default());
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            accepted = listener.socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => start_connection(gateway, stream, peer, &listener, &mut full_log),
            Err(e) if is_of_one_connection(&e) => {}
            Err(e) => {
                metrics::counter!(names::ACCEPT_FAILED).increment(1);
                accept_log.log(|suppressed| tracing::warn!(error = %e, untold = suppressed, "accept failed; retrying"));
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }
}

/// Limits log lines about a frequent event to one per [`LOG_INTERVAL`].
#[derive(Default)]
struct LogLimit {
    last: Option<Instant>,
    suppressed: u32,
}

impl LogLimit {
    /// Calls `log` with the number of events suppressed since the last line.
    fn log(&mut self, log: impl FnOnce(u32)) {
        if self.last.is_some_and(|last| last.elapsed() < LOG_INTERVAL) {
            self.suppressed += 1;
            return;
        }
        log(self.suppressed);
        (self.last, self.suppressed) = (Some(Instant::now()), 0);
    }
}

fn start_connection(
    gateway: &Arc<Gateway>,
    stream: TcpStream,
    peer: SocketAddr,
    listener: &BoundListener,
    full_log: &mut LogLimit,
) {
    let at = listener.at;
    let config = gateway.config.load();
    let serves = config.listeners[at].serves.clone();
    if counts_accepts(&config.listeners[at]) && !gateway.peers.may_connect(peer.ip(), config.limits.connects_per_ip) {
        refused(peer, "rate");
        return;
    }
    let socket_use = gateway.descriptors.socket_use(&stream, &config.listeners[at]);
    if socket_use != SocketUse::Full {
        let limit = gateway.descriptors.limit();
        full_log.log(|suppressed| {
            tracing::warn!(limit, untold = suppressed, "clients refused: too few file descriptors are left");
        });
    }
    if socket_use == SocketUse::Refused {
        refused(peer, "descriptors");
        return;
    }
    let Some(mut permit) = ConnectionPermit::acquire(gateway, peer.ip()) else {
        refused(peer, "connections_per_ip");
        return;
    };
    permit.one_request = socket_use == SocketUse::OneRequest;
    // Disable Nagle's algorithm: a small frame would otherwise wait for the acknowledgement of the previous one.
    let _ = stream.set_nodelay(true);
    let certificate = listener.certificate.clone();
    tokio::spawn(async move {
        let Some(stream) = open(permit.gateway(), stream, peer, certificate).await else { return };
        if serves.contains(&Service::CimTcp) {
            tcp::serve(permit, stream, peer, at).await;
        } else {
            upgrade::serve(permit, stream, peer, at, serves).await;
        }
    });
}

/// True if every accepted connection counts toward `limits.connects_per_ip`. Each may become a client, or needs a TLS
/// handshake, which costs more than hundreds of requests. On a plain listener for back ends only connections that
/// become clients count, at that moment.
pub(super) fn counts_accepts(listener: &Listener) -> bool {
    listener.tls.is_some() || !listener.has(Service::Api)
}

/// Returns the stream for the listener's protocol; `None` if the TLS handshake fails or the gateway stops.
async fn open(
    gateway: &Gateway,
    stream: TcpStream,
    peer: SocketAddr,
    certificate: Option<Arc<Certificate>>,
) -> Option<MaybeTlsStream> {
    let Some(certificate) = certificate else { return Some(MaybeTlsStream::plain(stream)) };
    let limit = gateway.config.load().limits.handshake;
    let mut stop = gateway.stop.subscribe();
    let opened = tokio::select! {
        () = stopped(&mut stop) => return None,
        opened = certificate.accept(stream, limit) => opened,
    };
    opened.map_err(|reason| refused(peer, reason)).ok()
}

/// Counts and logs a refused connection attempt.
pub(super) fn refused(peer: SocketAddr, reason: &'static str) {
    metrics::counter!(names::REFUSED, "reason" => reason).increment(1);
    if may_log(peer.ip()) {
        tracing::debug!(%peer, reason, "refused");
    }
}

/// True for errors of the connection that was being accepted, not of the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted | Kind::ConnectionRefused | Kind::ConnectionReset | Kind::Interrupted
    )
}

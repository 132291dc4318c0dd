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

use super::descriptors::Entrance;
use super::peers::ConnectionPermit;
use super::socket::Stream;
use super::tls::Certificate;
use super::{Gateway, StartError, stopped, tcp, upgrade};
use crate::config::{Listener, Service};
use crate::telemetry::{may_log, names};
use crate::vital::Vitals;

/// Length of the kernel's accept queue.
const BACKLOG: u32 = 4096;
/// Pause when the process or the system has no file descriptor or memory left.
const PAUSE: Duration = Duration::from_millis(50);
/// Minimum time between two log lines about a failing accept.
const QUIET: Duration = Duration::from_secs(10);

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
pub(super) struct Door {
    pub(super) socket: TcpListener,
    /// `None` for a plain listener.
    pub(super) certificate: Option<Arc<Certificate>>,
    /// Index of the listener in the configuration.
    pub(super) at: usize,
}

/// Spawns a task that accepts until the gateway stops.
pub(super) fn spawn(gateway: &Arc<Gateway>, door: Door, vitals: &Vitals) {
    gateway.tasks.begin();
    let stop = gateway.stop.subscribe();
    let gateway = Arc::clone(gateway);
    let name = door.socket.local_addr().map_or_else(|_| "listener".to_owned(), |address| format!("listener {address}"));
    tokio::spawn(vitals.run(name, async move {
        accept(&gateway, door, stop).await;
        gateway.tasks.end();
    }));
}

async fn accept(gateway: &Arc<Gateway>, door: Door, mut stop: watch::Receiver<bool>) {
    let (mut trouble, mut crowd) = (Quiet::default(), Quiet::default());
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            accepted = door.socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => welcome(gateway, stream, peer, &door, &mut crowd),
            Err(e) if is_of_one_connection(&e) => {}
            Err(e) => {
                metrics::counter!(names::ACCEPT_FAILED).increment(1);
                trouble.tell(|untold| tracing::warn!(error = %e, untold, "accept failed; retrying"));
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Limits log lines about a frequent event to one per [`QUIET`].
#[derive(Default)]
struct Quiet {
    told: Option<Instant>,
    untold: u32,
}

impl Quiet {
    /// Calls `log` with the number of events suppressed since the last line.
    fn tell(&mut self, log: impl FnOnce(u32)) {
        if self.told.is_some_and(|told| told.elapsed() < QUIET) {
            self.untold += 1;
            return;
        }
        log(self.untold);
        (self.told, self.untold) = (Some(Instant::now()), 0);
    }
}

fn welcome(gateway: &Arc<Gateway>, stream: TcpStream, peer: SocketAddr, door: &Door, crowd: &mut Quiet) {
    let at = door.at;
    let config = gateway.config.load();
    let serves = config.listeners[at].serves.clone();
    if counts_accepts(&config.listeners[at]) && !gateway.peers.may_connect(peer.ip(), config.limits.connects_per_ip) {
        refused(peer, "rate");
        return;
    }
    let entrance = gateway.descriptors.entrance(&stream, &config.listeners[at]);
    if entrance != Entrance::Open {
        let limit = gateway.descriptors.limit();
        crowd.tell(|untold| tracing::warn!(limit, untold, "clients refused: too few file descriptors are left"));
    }
    if entrance == Entrance::Shut {
        refused(peer, "descriptors");
        return;
    }
    let Some(mut permit) = ConnectionPermit::enter(gateway, peer.ip()) else {
        refused(peer, "connections_per_ip");
        return;
    };
    permit.one_request = entrance == Entrance::OneRequest;
    // Disable Nagle's algorithm: a small frame would otherwise wait for the acknowledgement of the previous one.
    let _ = stream.set_nodelay(true);
    let certificate = door.certificate.clone();
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
) -> Option<Stream> {
    let Some(certificate) = certificate else { return Some(Stream::plain(stream)) };
    let limit = gateway.config.load().limits.handshake;
    let mut stop = gateway.stop.subscribe();
    let opened = tokio::select! {
        () = stopped(&mut stop) => return None,
        opened = certificate.welcome(stream, limit) => opened,
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

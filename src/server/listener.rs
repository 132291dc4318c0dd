//! Accepts: binds the addresses, counts who comes, and gives each socket to the protocol of its listener.
//!
//! Knows no frame, no HTTP, and of TLS only that it comes first. Clients are refused while descriptors are left for
//! requests ([`Descriptors`](super::Descriptors)). A listener that can accept nothing waits and goes on.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::descriptors::Entrance;
use super::peers::Guest;
use super::socket::Stream;
use super::tls::Certificate;
use super::{Gateway, StartError, stopped, tcp, upgrade};
use crate::config::{Listener, Service};
use crate::telemetry::{may_tell, names};
use crate::vital::Vitals;

/// Connections that the kernel keeps for us while we are busy.
const BACKLOG: u32 = 4096;
/// How long to wait when the process or system has no file descriptor or memory left.
const PAUSE: Duration = Duration::from_millis(50);
/// The log hears of it no more often.
const QUIET: Duration = Duration::from_secs(10);

/// Takes the address; nothing is accepted yet.
pub(super) fn bind(config: &Listener) -> Result<TcpListener, StartError> {
    let address = config.address;
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A node that starts again takes the address of its former life at once.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|source| StartError::Bind { address, source })
}

/// One listener.
pub(super) struct Door {
    pub(super) socket: TcpListener,
    /// `None` where it is plain.
    pub(super) certificate: Option<Arc<Certificate>>,
    /// Which listener of the config.
    pub(super) at: usize,
}

/// Accepts until the gateway stops.
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
                trouble.tell(|untold| tracing::warn!(error = %e, untold, "cannot accept for a moment"));
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Tells at most once in [`QUIET`] of what happens many times a second.
#[derive(Default)]
struct Quiet {
    told: Option<Instant>,
    untold: u32,
}

impl Quiet {
    /// Gives `log` how often it was not told since the last time.
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
    if counts_accepts(&config.listeners[at]) && !gateway.peers.may_connect(peer.ip()) {
        refused(peer, "rate");
        return;
    }
    let entrance = gateway.descriptors.entrance(&stream, &config.listeners[at]);
    if entrance != Entrance::Open {
        let limit = gateway.descriptors.limit();
        crowd.tell(|untold| tracing::warn!(limit, untold, "clients are refused: file descriptors are short"));
    }
    if entrance == Entrance::Shut {
        refused(peer, "descriptors");
        return;
    }
    let Some(mut guest) = Guest::enter(gateway, peer.ip()) else {
        refused(peer, "connections_per_ip");
        return;
    };
    guest.one_request = entrance == Entrance::OneRequest;
    // Without it a small frame may wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    let certificate = door.certificate.clone();
    tokio::spawn(async move {
        let Some(stream) = open(guest.gateway(), stream, peer, certificate).await else { return };
        if serves.contains(&Service::CimTcp) {
            tcp::serve(guest, stream, peer, at).await;
        } else {
            upgrade::serve(guest, stream, peer, at, serves).await;
        }
    });
}

/// Whether everybody who is accepted here counts as a connect: each may become a client, or has a handshake of TLS done,
/// which costs more than to answer hundreds of requests. Where back ends push without it, only those who become clients
/// count, when they do.
pub(super) fn counts_accepts(listener: &Listener) -> bool {
    listener.tls.is_some() || !listener.has(Service::Api)
}

/// The stream on which the listener's protocol is spoken; `None` when TLS comes to nothing, or the gateway stops.
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

/// Counts and logs a connect that becomes no connection.
pub(super) fn refused(peer: SocketAddr, reason: &'static str) {
    metrics::counter!(names::REFUSED, "reason" => reason).increment(1);
    if may_tell(peer.ip()) {
        tracing::debug!(%peer, reason, "refused");
    }
}

/// An error of the connection that was about to be accepted, not of the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted | Kind::ConnectionRefused | Kind::ConnectionReset | Kind::Interrupted
    )
}

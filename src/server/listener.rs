//! Accepts: binds the addresses, counts who comes, and gives each socket to the protocol of its listener.
//!
//! Knows no frame and no HTTP. Running out of file descriptors is survived: it waits and goes on.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::peers::Guest;
use super::{Gateway, StartError, stopped, tcp, upgrade};
use crate::config::{Listener, Service};
use crate::telemetry::names;

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

/// Accepts until the gateway stops.
pub(super) fn spawn(gateway: &Arc<Gateway>, listener: TcpListener, at: usize) {
    gateway.tasks.begin();
    let stop = gateway.stop.subscribe();
    let gateway = Arc::clone(gateway);
    tokio::spawn(async move {
        accept(&gateway, listener, at, stop).await;
        gateway.tasks.end();
    });
}

async fn accept(gateway: &Arc<Gateway>, listener: TcpListener, at: usize, mut stop: watch::Receiver<bool>) {
    let mut trouble = Trouble::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => welcome(gateway, stream, peer, at),
            Err(e) if is_of_one_connection(&e) => {}
            Err(e) => {
                trouble.tell(&e);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Tells at most once in [`QUIET`] that nothing can be accepted: it is tried many times a second.
#[derive(Default)]
struct Trouble {
    told: Option<Instant>,
    untold: u32,
}

impl Trouble {
    fn tell(&mut self, error: &io::Error) {
        metrics::counter!(names::ACCEPT_FAILED).increment(1);
        if self.told.is_some_and(|told| told.elapsed() < QUIET) {
            self.untold += 1;
            return;
        }
        tracing::warn!(%error, untold = self.untold, "cannot accept for a moment");
        (self.told, self.untold) = (Some(Instant::now()), 0);
    }
}

fn welcome(gateway: &Arc<Gateway>, stream: TcpStream, peer: SocketAddr, at: usize) {
    let serves = gateway.config.load().listeners[at].serves.clone();
    // Where back ends push, too, only those who become clients count as connects: see `upgrade`.
    if !serves.contains(&Service::Api) && !gateway.peers.may_connect(peer.ip()) {
        refused(peer, "rate");
        return;
    }
    let Some(guest) = Guest::enter(gateway, peer.ip()) else {
        refused(peer, "connections_per_ip");
        return;
    };
    // Without it a small frame may wait for the acknowledgement of the one before.
    let _ = stream.set_nodelay(true);
    if serves.contains(&Service::CimTcp) {
        tokio::spawn(tcp::serve(guest, stream, peer, at));
    } else {
        tokio::spawn(upgrade::serve(guest, stream, peer, at, serves));
    }
}

/// Counts and logs a connect that becomes no connection.
pub(super) fn refused(peer: SocketAddr, reason: &'static str) {
    metrics::counter!(names::REFUSED, "reason" => reason).increment(1);
    tracing::debug!(%peer, reason, "refused");
}

/// An error of the connection that was about to be accepted, not of the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted | Kind::ConnectionRefused | Kind::ConnectionReset | Kind::Interrupted
    )
}

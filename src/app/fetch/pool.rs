//! Idle connections, kept for the next request of the same plugin to the same server.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::plugin::fetch::{FetchRequest, Scheme};

/// The sending side of a connection.
pub(super) type Sender = SendRequest<Full<Bytes>>;

/// Maximum idle connections per server and in total.
const MAX_IDLE_PER_SERVER: usize = 4;
const MAX_IDLE: usize = 256;
/// Maximum idle time. Many servers close idle connections after a minute.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The plugin and the server that it connects to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    plugin: Arc<str>,
    scheme: Scheme,
    host: String,
    port: u16,
}

impl Key {
    pub(super) fn of(request: &FetchRequest) -> Self {
        let url = &request.url;
        Self { plugin: Arc::clone(&request.plugin), scheme: url.scheme, host: url.host.clone(), port: url.port }
    }
}

/// An idle connection.
pub(super) struct Idle {
    pub(super) sender: Sender,
    /// Address of the server.
    pub(super) address: IpAddr,
    since: Instant,
}

/// All idle connections.
#[derive(Default)]
pub(super) struct Pool {
    servers: Mutex<HashMap<Key, Vec<Idle>>>,
}

impl Pool {
    /// Takes the newest idle connection that is open and permitted. Drops those that are not.
    pub(super) fn take(&self, key: &Key, permits: impl Fn(IpAddr) -> bool) -> Option<Idle> {
        let mut servers = self.servers.lock();
        let idle_connections = servers.get_mut(key)?;
        idle_connections.retain(|idle| is_fresh(idle) && permits(idle.address));
        let idle = idle_connections.pop();
        if idle_connections.is_empty() {
            servers.remove(key);
        }
        idle
    }

    /// Stores the connection if it is open and there is room.
    pub(super) fn put(&self, key: Key, address: IpAddr, sender: Sender) {
        if sender.is_closed() {
            return;
        }
        let mut servers = self.servers.lock();
        if servers.values().map(Vec::len).sum::<usize>() >= MAX_IDLE {
            servers.retain(|_, idle_connections| {
                idle_connections.retain(is_fresh);
                !idle_connections.is_empty()
            });
            if servers.values().map(Vec::len).sum::<usize>() >= MAX_IDLE {
                return;
            }
        }
        let idle_connections = servers.entry(key).or_default();
        if idle_connections.len() < MAX_IDLE_PER_SERVER {
            idle_connections.push(Idle { sender, address, since: Instant::now() });
        }
    }
}

fn is_fresh(idle: &Idle) -> bool {
    !idle.sender.is_closed() && idle.since.elapsed() < IDLE_TIMEOUT
}

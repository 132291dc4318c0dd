//! Connections that wait for the next request to the same place by the same plugin.

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

/// The near side of a connection.
pub(super) type Sender = SendRequest<Full<Bytes>>;

/// Most that wait for one place, and over all places.
const PER_PLACE: usize = 4;
const OVER_ALL: usize = 256;
/// One that waited longer is not used: many servers close theirs after a minute.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who asks whom.
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

/// One that waits.
pub(super) struct Idle {
    pub(super) sender: Sender,
    /// Where it leads.
    pub(super) address: IpAddr,
    since: Instant,
}

/// All that wait.
#[derive(Default)]
pub(super) struct Pool {
    places: Mutex<HashMap<Key, Vec<Idle>>>,
}

impl Pool {
    /// The newest one that is open and may be used still; those that are not are dropped.
    pub(super) fn take(&self, key: &Key, permits: impl Fn(IpAddr) -> bool) -> Option<Idle> {
        let mut places = self.places.lock();
        let waiting = places.get_mut(key)?;
        waiting.retain(|idle| is_fresh(idle) && permits(idle.address));
        let idle = waiting.pop();
        if waiting.is_empty() {
            places.remove(key);
        }
        idle
    }

    /// Keeps it, if it is open and there is room.
    pub(super) fn put(&self, key: Key, address: IpAddr, sender: Sender) {
        if sender.is_closed() {
            return;
        }
        let mut places = self.places.lock();
        if places.values().map(Vec::len).sum::<usize>() >= OVER_ALL {
            places.retain(|_, waiting| {
                waiting.retain(is_fresh);
                !waiting.is_empty()
            });
            if places.values().map(Vec::len).sum::<usize>() >= OVER_ALL {
                return;
            }
        }
        let waiting = places.entry(key).or_default();
        if waiting.len() < PER_PLACE {
            waiting.push(Idle { sender, address, since: Instant::now() });
        }
    }
}

fn is_fresh(idle: &Idle) -> bool {
    !idle.sender.is_closed() && idle.since.elapsed() < PATIENCE
}

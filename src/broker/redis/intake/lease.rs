//! Lease for the only subscription of a pub/sub intake: its owner, and the time until which the owner is sure of it.
//!
//! The lease is a key with an expiry. A term counter increases with each change of owner. An owner that finds its lease
//! expired and gets the next term knows that no other node held it in between. Independent of channels.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use ::redis::Script;
use tokio::time::Instant;

use super::super::client::Client;
use crate::broker::Unavailable;

/// Time to live of the lease after a renewal.
const TTL: Duration = Duration::from_millis(1_500);
/// Time for which an owner is sure of the lease. Slightly shorter than [`TTL`].
const HELD_FOR: Duration = Duration::from_millis(1_250);

/// Renews the lease, or takes a free one. KEYS: owner, term. ARGV: token, TTL, first term. Answers the owner (1 = the
/// caller, 0 = another node) and the term.
const RENEW_SCRIPT: &str = r"
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return {0, 0} end
if not owner then
  if not redis.call('GET', KEYS[2]) then redis.call('SET', KEYS[2], ARGV[3]) end
  redis.call('INCR', KEYS[2])
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {1, tonumber(redis.call('GET', KEYS[2]) or 0)}";

/// Deletes the lease if the caller holds it.
const RELEASE_SCRIPT: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0";

/// Lease as seen by one node.
pub(super) struct Lease {
    client: Arc<Client>,
    /// Keys of owner and term.
    keys: [String; 2],
    token: String,
    renew: Script,
    release: Script,
    term: u64,
    held_until: Option<Instant>,
}

/// Owner of the lease after a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeaseStatus {
    /// This node has held the lease without interruption since the last call.
    Renewed,
    /// This node now holds the lease, which was free. `unbroken`: no other node has held it since this node did.
    Acquired { unbroken: bool },
    /// Another node holds the lease.
    HeldByOther,
}

impl Lease {
    /// Creates a lease shared by all callers with the same `name`. Its value shows `node` as the owner.
    pub(super) fn new(client: Arc<Client>, name: &str, node: &str) -> Self {
        let random = RandomState::new().hash_one(std::process::id());
        Self {
            client,
            keys: ["owner", "term"].map(|what| format!("{{{name}}}:{what}")),
            token: format!("{node} {random:016x}"),
            renew: Script::new(RENEW_SCRIPT),
            release: Script::new(RELEASE_SCRIPT),
            term: 0,
            held_until: None,
        }
    }

    /// Renews the lease, or takes it if it is free.
    ///
    /// # Errors
    /// [`Unavailable`]: this node still holds the lease as long as [`held_until`](Self::held_until) returns a time.
    pub(super) async fn renew_or_acquire(&mut self) -> Result<LeaseStatus, Unavailable> {
        // Counts from before the request, because the engine starts its expiry later.
        let requested_at = Instant::now();
        let mut call = self.renew.prepare_invoke();
        call.key(&self.keys[0]).key(&self.keys[1]).arg(&self.token).arg(TTL.as_millis().to_string()).arg(first_term());
        let (is_mine, term): (u8, u64) = self.client.invoke(&call).await?;
        if is_mine == 0 {
            self.held_until = None;
            return Ok(LeaseStatus::HeldByOther);
        }
        self.held_until = Some(requested_at + HELD_FOR);
        let previous_term = std::mem::replace(&mut self.term, term);
        Ok(if term == previous_term {
            LeaseStatus::Renewed
        } else {
            LeaseStatus::Acquired { unbroken: previous_term != 0 && term == previous_term + 1 }
        })
    }

    /// Time until which this node certainly holds the lease. `None` if another node may hold it.
    pub(super) fn held_until(&self) -> Option<Instant> {
        self.held_until.filter(|until| *until > Instant::now())
    }

    /// Releases the lease if this node holds it.
    pub(super) async fn release(&mut self) {
        self.held_until = None;
        let mut call = self.release.prepare_invoke();
        call.key(&self.keys[0]).arg(&self.token);
        if let Err(error) = self.client.invoke::<u8>(&call).await {
            tracing::debug!(%error, "lease was not released; it expires by itself");
        }
    }
}

/// Draws the term that a server without one counts from. A server that lost its data would otherwise repeat terms that an
/// owner remembers. Lua counts 52 bits exactly.
fn first_term() -> u64 {
    RandomState::new().hash_one(std::process::id()) >> 12
}

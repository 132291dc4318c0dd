//! Who has the one subscription of a pub/sub intake, and for how long it can be sure of it.
//!
//! The lease is a key that expires by itself; each time it changes hands a term is counted. An owner that finds its lease
//! gone, and takes the very next term, knows that nobody had it in between. Knows no channel.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use ::redis::Script;
use tokio::time::Instant;

use super::client::Client;
use crate::broker::Unavailable;

/// The lease ends so long after it was renewed last.
const TTL: Duration = Duration::from_millis(1_500);
/// An owner is sure of it for a little less.
const SURE: Duration = Duration::from_millis(1_250);

/// Renews the lease, or takes it where nobody has it. KEYS: owner, term. ARGV: token, TTL. Answers who has it now (1 =
/// the caller, 0 = another) and its term.
const HOLD: &str = r"
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return {0, 0} end
if not owner then redis.call('INCR', KEYS[2]) end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {1, tonumber(redis.call('GET', KEYS[2]) or 0)}";

/// Ends the lease if it is the caller's.
const RELEASE: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0";

/// One node's hand in the lease.
pub(super) struct Lease {
    client: Arc<Client>,
    /// Owner and term.
    keys: [String; 2],
    token: String,
    hold: Script,
    release: Script,
    term: u64,
    sure_until: Option<Instant>,
}

/// Whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// This node's, and has been all the time since it was asked before.
    Still,
    /// This node's from now on; until now it was nobody's. `unbroken`: nobody else had it since this node did.
    Taken { unbroken: bool },
    /// Another node's.
    Others,
}

impl Lease {
    /// Whoever uses the same `name` shares one lease; `node` shows in its value who has it.
    pub(super) fn new(client: Arc<Client>, name: &str, node: &str) -> Self {
        let random = RandomState::new().hash_one(std::process::id());
        Self {
            client,
            keys: ["owner", "term"].map(|what| format!("{{{name}}}:{what}")),
            token: format!("{node} {random:016x}"),
            hold: Script::new(HOLD),
            release: Script::new(RELEASE),
            term: 0,
            sure_until: None,
        }
    }

    /// Renews it, or takes it where nobody has it.
    ///
    /// # Errors
    /// [`Unavailable`]: it is this node's as long as it [is sure](Self::is_sure).
    pub(super) async fn hold(&mut self) -> Result<Held, Unavailable> {
        // Counted from before the question: the engine begins to count later.
        let asked = Instant::now();
        let mut call = self.hold.prepare_invoke();
        call.key(&self.keys[0]).key(&self.keys[1]).arg(&self.token).arg(TTL.as_millis().to_string());
        let (is_mine, term): (u8, u64) = self.client.invoke(&call).await?;
        if is_mine == 0 {
            self.sure_until = None;
            return Ok(Held::Others);
        }
        self.sure_until = Some(asked + SURE);
        let before = std::mem::replace(&mut self.term, term);
        // A term that does not grow: the engine lost its data, and with it what happened meanwhile.
        Ok(if term == before { Held::Still } else { Held::Taken { unbroken: before != 0 && term == before + 1 } })
    }

    /// Until when it is this node's whatever happens; `None` = it may be another's already.
    pub(super) fn sure_until(&self) -> Option<Instant> {
        self.sure_until.filter(|until| *until > Instant::now())
    }

    /// Gives it back, if it is this node's.
    pub(super) async fn release(&mut self) {
        self.sure_until = None;
        let mut call = self.release.prepare_invoke();
        call.key(&self.keys[0]).arg(&self.token);
        if let Err(error) = self.client.invoke::<u8>(&call).await {
            tracing::debug!(%error, "a lease was not given back: it ends by itself");
        }
    }
}

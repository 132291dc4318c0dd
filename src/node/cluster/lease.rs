//! Lease of the node: renewal and loss.
//!
//! After half the lease time without a renewal, the node accepts no new connection. After the whole lease time it
//! closes all connections, because other nodes report their users offline then. So it never keeps users that others
//! believe gone. Independent of engines: time-outs are measured from before each renewal, so they end no later than the
//! engine's.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::away::send_away;
use super::choose::Directions;
use super::membership::Membership;
use crate::backoff::Backoff;
use crate::broker::roster::LeaseError;
use crate::disconnect::Disconnect;
use crate::hub::Hub;

/// Time to live of a lease.
pub(crate) const TTL: Duration = Duration::from_secs(10);
/// Interval of the renewals.
pub(crate) const RENEWAL: Duration = Duration::from_secs(3);
/// Interval after a failed renewal.
const RETRY: Duration = Duration::from_secs(1);
/// Maximum pause between two attempts to join.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// Interval of the checks for remaining connections.
const LOOK: Duration = Duration::from_millis(50);

/// Lease state of the node.
pub(super) struct Lease {
    standing: Mutex<Standing>,
    /// Notified when other nodes should learn of a change before the next renewal.
    pub(super) news: Notify,
    /// Notified when the engine has answered a renewal.
    pub(super) answered: Notify,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not in the cluster, for this reason.
    Out(String),
    Held {
        incarnation: u64,
    },
    /// The last renewal is too long ago, for this reason.
    Late {
        incarnation: u64,
        why: String,
    },
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            standing: Mutex::new(Standing::Out("the node is starting".to_owned())),
            news: Notify::new(),
            answered: Notify::new(),
        }
    }
}

impl Lease {
    /// True if the node may accept users.
    pub(super) fn is_held(&self) -> bool {
        matches!(*self.standing.lock(), Standing::Held { .. })
    }

    /// Reason why it may not, in one sentence.
    pub(super) fn trouble(&self) -> Option<String> {
        match &*self.standing.lock() {
            Standing::Held { .. } => None,
            Standing::Out(why) => Some(format!("the node is not in the cluster: {why}")),
            Standing::Late { why, .. } => Some(format!("the lease of the node was not renewed: {why}")),
        }
    }

    pub(super) fn incarnation(&self) -> u64 {
        match *self.standing.lock() {
            Standing::Out(_) => 0,
            Standing::Held { incarnation } | Standing::Late { incarnation, .. } => incarnation,
        }
    }

    pub(super) fn set(&self, standing: Standing) {
        let mut now = self.standing.lock();
        let kind = std::mem::discriminant(&*now);
        if kind != std::mem::discriminant(&standing) {
            match &standing {
                Standing::Held { incarnation } => tracing::info!(incarnation, "node is in the cluster"),
                Standing::Late { why, .. } | Standing::Out(why) => tracing::warn!(why, "node accepts no connections"),
            }
        }
        *now = standing;
    }
}

/// Keeps the lease of the node.
pub(super) struct LeaseKeeper {
    hub: Arc<Hub>,
    membership: Arc<Membership>,
    directions: Arc<Directions>,
}

impl LeaseKeeper {
    pub(super) fn new(hub: Arc<Hub>, membership: Arc<Membership>, directions: Arc<Directions>) -> Self {
        Self { hub, membership, directions }
    }

    /// Joins, renews, and joins again after a loss. Never returns.
    pub(super) async fn keep(&self) {
        loop {
            if !self.membership.is_held() {
                self.join_at_last().await;
            }
            let why = self.renew_while_possible().await;
            self.give_up(why).await;
        }
    }

    async fn join_at_last(&self) {
        let mut backoff = Backoff::new(RETRY / 2, MAX_PAUSE);
        while self.membership.join().await.is_err() {
            sleep(backoff.wait()).await;
        }
    }

    /// Renews the lease and returns the reason once it is lost.
    async fn renew_while_possible(&self) -> String {
        let (mut renewed, mut pause) = (Instant::now(), RENEWAL);
        let mut trouble = "no renewal was answered".to_owned();
        let lease = &self.membership.lease;
        loop {
            let mark = renewed + if self.membership.is_held() { TTL / 2 } else { TTL };
            let renewal = async {
                tokio::select! {
                    () = sleep(pause) => {}
                    () = lease.news.notified() => {}
                }
                let begun = Instant::now();
                (begun, self.membership.renew().await)
            };
            // The deadlines come first, so that after a pause of the whole process nothing happens on an expired lease.
            tokio::select! {
                biased;
                () = sleep_until(mark) => {
                    if renewed.elapsed() >= TTL {
                        return trouble;
                    }
                    let incarnation = lease.incarnation();
                    lease.set(Standing::Late { incarnation, why: trouble.clone() });
                }
                (begun, result) = renewal => match result {
                    Ok(()) => {
                        (renewed, pause) = (begun, RENEWAL);
                        let incarnation = lease.incarnation();
                        lease.set(Standing::Held { incarnation });
                        lease.answered.notify_one();
                    }
                    Err(LeaseError::Unavailable(why)) => (trouble, pause) = (why.to_string(), RETRY),
                    // By the local clock the lease still holds, so its users were not reported offline: the engine has
                    // lost its data. The node joins again and keeps its connections.
                    Err(LeaseError::Lost(_)) if renewed.elapsed() < TTL && self.membership.join().await.is_ok() => {
                        tracing::warn!("engine lost the lease of the node; joined again with all users");
                        (renewed, pause) = (begun, RENEWAL);
                    }
                    Err(why) => return why.to_string(),
                },
            }
        }
    }

    /// Closes all connections and waits until they are gone. Users of one incarnation must not be taken for users of
    /// the next.
    async fn give_up(&self, why: String) {
        self.membership.lease.set(Standing::Out(why));
        loop {
            let connections = self.hub.connections();
            if connections.is_empty() {
                return;
            }
            for connection in connections {
                send_away(&self.directions, &connection, Disconnect::CUT_OFF).await;
            }
            sleep(LOOK).await;
        }
    }
}

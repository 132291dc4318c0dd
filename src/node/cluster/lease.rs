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

use super::choose::NodeChooser;
use super::membership::Membership;
use super::redirect::close_with_redirect;
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
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Lease state of the node.
pub(super) struct Lease {
    state: Mutex<LeaseState>,
    /// Notified when other nodes should learn of a change before the next renewal.
    pub(super) renew_now: Notify,
    /// Notified when the engine has answered a renewal.
    pub(super) renewed: Notify,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LeaseState {
    /// Not in the cluster, for this reason.
    NotHeld(String),
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
            state: Mutex::new(LeaseState::NotHeld("the node is starting".to_owned())),
            renew_now: Notify::new(),
            renewed: Notify::new(),
        }
    }
}

impl Lease {
    /// True if the node may accept users.
    pub(super) fn is_held(&self) -> bool {
        matches!(*self.state.lock(), LeaseState::Held { .. })
    }

    /// Reason why it may not, in one sentence.
    pub(super) fn fault(&self) -> Option<String> {
        match &*self.state.lock() {
            LeaseState::Held { .. } => None,
            LeaseState::NotHeld(why) => Some(format!("the node is not in the cluster: {why}")),
            LeaseState::Late { why, .. } => Some(format!("the lease of the node was not renewed: {why}")),
        }
    }

    pub(super) fn incarnation(&self) -> u64 {
        match *self.state.lock() {
            LeaseState::NotHeld(_) => 0,
            LeaseState::Held { incarnation } | LeaseState::Late { incarnation, .. } => incarnation,
        }
    }

    pub(super) fn set(&self, state: LeaseState) {
        let mut current = self.state.lock();
        let kind = std::mem::discriminant(&*current);
        if kind != std::mem::discriminant(&state) {
            match &state {
                LeaseState::Held { incarnation } => tracing::info!(incarnation, "node is in the cluster"),
                LeaseState::Late { why, .. } | LeaseState::NotHeld(why) => {
                    tracing::warn!(why, "node accepts no connections");
                }
            }
        }
        *current = state;
    }
}

/// Keeps the lease of the node.
pub(super) struct LeaseKeeper {
    hub: Arc<Hub>,
    membership: Arc<Membership>,
    chooser: Arc<NodeChooser>,
}

impl LeaseKeeper {
    pub(super) fn new(hub: Arc<Hub>, membership: Arc<Membership>, chooser: Arc<NodeChooser>) -> Self {
        Self { hub, membership, chooser }
    }

    /// Joins, renews, and joins again after a loss. Never returns.
    pub(super) async fn run(&self) {
        loop {
            if !self.membership.is_held() {
                self.join_with_retries().await;
            }
            let why = self.renew_until_lost().await;
            self.close_all(why).await;
        }
    }

    async fn join_with_retries(&self) {
        let mut backoff = Backoff::new(RETRY / 2, MAX_PAUSE);
        while self.membership.join().await.is_err() {
            sleep(backoff.wait()).await;
        }
    }

    /// Renews the lease and returns the reason once it is lost.
    async fn renew_until_lost(&self) -> String {
        let (mut renewed, mut pause) = (Instant::now(), RENEWAL);
        let mut fault = "no renewal was answered".to_owned();
        let lease = &self.membership.lease;
        loop {
            let deadline = renewed + if self.membership.is_held() { TTL / 2 } else { TTL };
            let renewal = async {
                tokio::select! {
                    () = sleep(pause) => {}
                    () = lease.renew_now.notified() => {}
                }
                let begun = Instant::now();
                (begun, self.membership.renew().await)
            };
            // The deadlines come first, so that after a pause of the whole process nothing happens on an expired lease.
            tokio::select! {
                biased;
                () = sleep_until(deadline) => {
                    if renewed.elapsed() >= TTL {
                        return fault;
                    }
                    let incarnation = lease.incarnation();
                    lease.set(LeaseState::Late { incarnation, why: fault.clone() });
                }
                (begun, result) = renewal => match result {
                    Ok(()) => {
                        (renewed, pause) = (begun, RENEWAL);
                        let incarnation = lease.incarnation();
                        lease.set(LeaseState::Held { incarnation });
                        lease.renewed.notify_one();
                    }
                    Err(LeaseError::Unavailable(why)) => (fault, pause) = (why.to_string(), RETRY),
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
    async fn close_all(&self, why: String) {
        self.membership.lease.set(LeaseState::NotHeld(why));
        loop {
            let connections = self.hub.connections();
            if connections.is_empty() {
                return;
            }
            for connection in connections {
                close_with_redirect(&self.chooser, &connection, Disconnect::CUT_OFF).await;
            }
            sleep(CHECK_INTERVAL).await;
        }
    }
}

//! Lease of the node: join, renewal, and loss.
//!
//! After half the lease time without a renewal, the node accepts no new connection. After the whole lease time it
//! closes all connections, because other nodes report their users offline then. So it never keeps users that others
//! believe gone. Independent of engines: time-outs are measured from before each renewal, so they end no later than the
//! engine's.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::Node;
use crate::backoff::Backoff;
use crate::broker::roster::{LeaseError, Member};
use crate::disconnect::Disconnect;

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
pub(in crate::node) struct Lease {
    standing: Mutex<Standing>,
    /// Notified when other nodes should learn of a change before the next renewal.
    pub(in crate::node) news: Notify,
    /// Notified when the engine has answered a renewal.
    answered: Notify,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
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
            standing: Mutex::new(Standing::Out("it has just started".to_owned())),
            news: Notify::new(),
            answered: Notify::new(),
        }
    }
}

impl Lease {
    /// True if the node may accept users.
    pub(in crate::node) fn is_held(&self) -> bool {
        matches!(*self.standing.lock(), Standing::Held { .. })
    }

    /// Reason why it may not, in one sentence.
    pub(in crate::node) fn trouble(&self) -> Option<String> {
        match &*self.standing.lock() {
            Standing::Held { .. } => None,
            Standing::Out(why) => Some(format!("the node is not of the cluster: {why}")),
            Standing::Late { why, .. } => Some(format!("the node's lease runs out: {why}")),
        }
    }

    fn incarnation(&self) -> u64 {
        match *self.standing.lock() {
            Standing::Out(_) => 0,
            Standing::Held { incarnation } | Standing::Late { incarnation, .. } => incarnation,
        }
    }

    fn set(&self, standing: Standing) {
        let mut now = self.standing.lock();
        let kind = std::mem::discriminant(&*now);
        if kind != std::mem::discriminant(&standing) {
            match &standing {
                Standing::Held { incarnation } => tracing::info!(incarnation, "the node is of the cluster"),
                Standing::Late { why, .. } | Standing::Out(why) => tracing::warn!(why, "the node takes no connection"),
            }
        }
        *now = standing;
    }
}

impl Node {
    /// Joins the cluster. After an error, [`Node::attend`] tries again.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn join_cluster(&self) -> Result<(), LeaseError> {
        let joined = self.cluster.roster.join(&self.card()).await;
        match &joined {
            Ok(incarnation) => {
                self.cluster.lease.set(Standing::Held { incarnation: *incarnation });
                self.refresh().await;
                self.cluster.lease.answered.notify_one();
            }
            Err(why) => self.cluster.lease.set(Standing::Out(why.to_string())),
        }
        joined.map(drop)
    }

    /// Releases the lease at the end of the node. Call it after [`Node::attend`] is dropped.
    pub async fn leave_cluster(&self) {
        self.cluster.lease.set(Standing::Out("it has left".to_owned()));
        self.cluster.roster.leave().await;
        self.broker.close().await;
    }

    /// Current description of this node for the others.
    #[must_use]
    pub fn card(&self) -> Member {
        Member {
            incarnation: self.cluster.lease.incarnation(),
            connections: self.hub.live() as u64,
            draining: self.is_draining(),
            ..self.cluster.me.clone()
        }
    }

    /// Never returns.
    pub(super) async fn keep_lease(&self) {
        loop {
            if !self.cluster.lease.is_held() {
                self.join_at_last().await;
            }
            let why = self.renew_while_possible().await;
            self.give_up(why).await;
        }
    }

    async fn join_at_last(&self) {
        let mut backoff = Backoff::new(RETRY / 2, MAX_PAUSE);
        while self.join_cluster().await.is_err() {
            sleep(backoff.wait()).await;
        }
    }

    /// Renews the lease and returns the reason once it is lost.
    async fn renew_while_possible(&self) -> String {
        let (mut renewed, mut pause) = (Instant::now(), RENEWAL);
        let mut trouble = "no renewal was answered".to_owned();
        loop {
            let mark = renewed + if self.cluster.lease.is_held() { TTL / 2 } else { TTL };
            let renewal = async {
                tokio::select! {
                    () = sleep(pause) => {}
                    () = self.cluster.lease.news.notified() => {}
                }
                let begun = Instant::now();
                (begun, self.cluster.roster.renew(&self.card()).await)
            };
            // The deadlines come first, so that after a pause of the whole process nothing happens on an expired lease.
            tokio::select! {
                biased;
                () = sleep_until(mark) => {
                    if renewed.elapsed() >= TTL {
                        return trouble;
                    }
                    let incarnation = self.cluster.lease.incarnation();
                    self.cluster.lease.set(Standing::Late { incarnation, why: trouble.clone() });
                }
                (begun, result) = renewal => match result {
                    Ok(()) => {
                        (renewed, pause) = (begun, RENEWAL);
                        let incarnation = self.cluster.lease.incarnation();
                        self.cluster.lease.set(Standing::Held { incarnation });
                        self.cluster.lease.answered.notify_one();
                    }
                    Err(LeaseError::Unavailable(why)) => (trouble, pause) = (why.to_string(), RETRY),
                    // By the local clock the lease still holds, so its users were not reported offline: the engine has
                    // lost its data. The node joins again and keeps its connections.
                    Err(LeaseError::Lost(_)) if renewed.elapsed() < TTL && self.join_cluster().await.is_ok() => {
                        tracing::warn!("the engine had lost the node's lease: it has joined anew, with all its users");
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
        self.cluster.lease.set(Standing::Out(why));
        loop {
            let connections = self.hub.connections();
            if connections.is_empty() {
                return;
            }
            for connection in connections {
                self.send_away(&connection, Disconnect::CUT_OFF).await;
            }
            sleep(LOOK).await;
        }
    }

    /// Does the work that waits for the engine, after each answered renewal. Never returns. Runs beside the renewals,
    /// because it may make a call for each of 100 000 users.
    pub(super) async fn look_around(&self) {
        loop {
            self.cluster.lease.answered.notified().await;
            self.refresh().await;
            self.tell_fallen().await;
            self.tell_untold().await;
        }
    }

    async fn refresh(&self) {
        if let Err(why) = self.refresh_members().await {
            tracing::debug!(%why, "the members stay as they were known");
        }
    }
}

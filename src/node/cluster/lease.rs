//! The node's lease: joined, renewed, and what it does when it cannot.
//!
//! A node that could not renew for half the lease's time takes no new connection; one that could not for the whole of it
//! closes those that it has, because the others tell their users offline then. It never keeps users that others believe
//! gone. Knows no engine: time-outs here are measured from before each renewal, so they end no later than the engine's.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::Node;
use crate::backoff::Backoff;
use crate::broker::roster::{LeaseError, Member};
use crate::disconnect::Disconnect;

/// How long a lease lives without a renewal.
pub(crate) const TTL: Duration = Duration::from_secs(10);
/// Time between two renewals.
pub(crate) const RENEWAL: Duration = Duration::from_secs(3);
/// The same after one that failed.
const RETRY: Duration = Duration::from_secs(1);
/// The longest pause between two attempts to join.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// How often the last connections are looked for.
const LOOK: Duration = Duration::from_millis(50);

/// Where the node stands.
pub(in crate::node) struct Lease {
    standing: Mutex<Standing>,
    /// Something changed that the others should know before the next renewal.
    pub(in crate::node) news: Notify,
    /// The engine has answered a renewal.
    answered: Notify,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// Not, or not any more, of the cluster: why.
    Out(String),
    Held {
        incarnation: u64,
    },
    /// The last renewal is too long ago: why.
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
    /// Whether the node may take users.
    pub(in crate::node) fn is_held(&self) -> bool {
        matches!(*self.standing.lock(), Standing::Held { .. })
    }

    /// Why it may not, in one sentence.
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
    /// Joins the cluster, or says why not: then [`Node::attend`] tries again.
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

    /// Gives the lease back, at the end of the node's life. To be called when [`Node::attend`] has been dropped.
    pub async fn leave_cluster(&self) {
        self.cluster.lease.set(Standing::Out("it has left".to_owned()));
        self.cluster.roster.leave().await;
        self.broker.close().await;
    }

    /// This node as the others see it, now.
    #[must_use]
    pub fn card(&self) -> Member {
        Member {
            incarnation: self.cluster.lease.incarnation(),
            connections: self.hub.live() as u64,
            draining: self.is_draining(),
            ..self.cluster.me.clone()
        }
    }

    /// Ends never.
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

    /// Returns, with the reason, when the lease is gone.
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
            // The marks come first: after a pause of the whole process nothing is done on a lease that has run out.
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
                    // By its own clock the lease holds still, so nobody was told that its users are gone: the engine has
                    // lost what it knew. The node tells it anew and keeps its connections.
                    Err(LeaseError::Lost(_)) if renewed.elapsed() < TTL && self.join_cluster().await.is_ok() => {
                        tracing::warn!("the engine had lost the node's lease: it has joined anew, with all its users");
                        (renewed, pause) = (begun, RENEWAL);
                    }
                    Err(why) => return why.to_string(),
                },
            }
        }
    }

    /// Closes every connection and waits until all are gone: the users of another life of this node must not be taken
    /// for those of the next.
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

    /// Does what waits for the engine, each time it has answered. Ends never. Beside the renewals: it may make a call for
    /// each of 100 000 users, and the lease has to be renewed meanwhile.
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

//! Ingress from brokers: one task per topic, from its records to [`Node::publish`].
//!
//! A record is parsed like the body of `POST /publish`. It is completed when the bus has accepted all its messages. A
//! record that cannot be accepted is moved to the dead letters, so it never blocks its partition or stream. Uses
//! [`Source`]; independent of engines.

mod batch;
mod meters;
mod task;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::config::LiveConfig;
use crate::node::{Node, Source};
use crate::vital::Vitals;
use task::IntakeTask;

/// Time before the deadline of a drain at which intakes give up their records, so that they can still count them. Half of
/// the drain if that is shorter.
const ABANDON_TIME: Duration = Duration::from_secs(2);

/// Stage of a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// The intake reads.
    No,
    /// The intake finishes the records already read.
    Finish,
    /// The intake gives up the records that are not finished.
    Abandon,
}

/// A topic to consume.
pub struct IntakeSource {
    /// Name in metrics, logs and readiness: kind and topic.
    pub name: String,
    /// Source of the records.
    pub source: Box<dyn Source>,
}

/// The running intakes of a node.
pub struct Intakes {
    stop: watch::Sender<Stop>,
    tasks: JoinSet<()>,
}

impl Intakes {
    /// Starts one task per source, registered in `vitals`. Follows the limits of `config`. A metrics recorder must be
    /// installed before.
    #[must_use]
    pub fn start(node: &Arc<Node>, config: &LiveConfig, sources: Vec<IntakeSource>, vitals: &Vitals) -> Self {
        let stop = watch::Sender::new(Stop::No);
        let mut tasks = JoinSet::new();
        for source in sources {
            let name = format!("intake {}", source.name);
            let task = IntakeTask::new(Arc::clone(node), source, config.clone(), stop.subscribe());
            tasks.spawn(vitals.run(name, task.run()));
        }
        Self { stop, tasks }
    }

    /// Stops reading, finishes and completes the records already read, and releases the topics. Gives up unfinished records
    /// shortly before `deadline`. Returns `false` if an intake did not end by then. Call it while the node still publishes.
    pub async fn drain(&mut self, deadline: Instant) -> bool {
        self.stop.send_replace(Stop::Finish);
        let rest = deadline.saturating_duration_since(Instant::now());
        if timeout_at(deadline - ABANDON_TIME.min(rest / 2), self.ended()).await.is_ok() {
            return true;
        }
        self.stop.send_replace(Stop::Abandon);
        timeout_at(deadline, self.ended()).await.is_ok()
    }

    async fn ended(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

//! Ingress from brokers: one task per topic, from its records to [`Node::publish`].
//!
//! A record is parsed like the body of `POST /publish`. It is completed when the bus has accepted all its messages. A
//! record that cannot be accepted is moved to the dead letters, so it never blocks its partition or stream. Uses
//! [`Source`]; independent of engines.

mod batch;
mod line;
mod meters;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::bounds;
use crate::config::Config;
use crate::node::{Node, Source};
use crate::protocol::push::Limits;
use crate::vital::Vitals;
use line::Line;

/// A topic to consume.
pub struct Feed {
    /// Name in metrics, logs and readiness: kind and topic.
    pub name: String,
    /// Source of the records.
    pub source: Box<dyn Source>,
}

/// The running intakes of a node.
pub struct Intakes {
    bounds: Arc<ArcSwap<Limits>>,
    /// Becomes `true` once.
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Intakes {
    /// Starts one task per feed, registered in `vitals`. A metrics recorder must be installed before.
    #[must_use]
    pub fn start(node: &Arc<Node>, config: &Config, feeds: Vec<Feed>, vitals: &Vitals) -> Self {
        let bounds = Arc::new(ArcSwap::from_pointee(bounds(&config.limits)));
        let stop = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        for feed in feeds {
            let name = format!("intake {}", feed.name);
            let line = Line::new(Arc::clone(node), feed, Arc::clone(&bounds), stop.subscribe());
            tasks.spawn(vitals.run(name, line.run()));
        }
        Self { bounds, stop, tasks }
    }

    /// Applies the limits of `config` from now on.
    pub fn reconfigure(&self, config: &Config) {
        self.bounds.store(Arc::new(bounds(&config.limits)));
    }

    /// Stops reading, finishes and completes the records already read, and releases the topics. Call it while the node
    /// still publishes.
    pub async fn drain(&mut self) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

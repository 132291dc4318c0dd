//! The ways in that a broker feeds: one task per topic, from its records to [`Node::publish`].
//!
//! A record is read as `POST /publish` reads its body, and settled when the bus has taken every message of it; what can
//! never be taken is buried where the operator finds it, so that no line ever stands still for it. Knows a [`Source`] and
//! no engine.

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

/// One topic to be read.
pub struct Feed {
    /// What it is called in metrics, logs and readiness: its kind and topic.
    pub name: String,
    /// Where its records come from.
    pub source: Box<dyn Source>,
}

/// A node's intakes, reading.
pub struct Intakes {
    bounds: Arc<ArcSwap<Limits>>,
    /// Becomes `true` once.
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Intakes {
    /// Reads every one of `feeds` from now on, each by a task that is registered in `vitals`. A metrics recorder must be installed before.
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

    /// Takes the limits of `config` from now on.
    pub fn reconfigure(&self, config: &Config) {
        self.bounds.store(Arc::new(bounds(&config.limits)));
    }

    /// Takes no more records, finishes those that were taken, settles them, and gives the topics back. Call it while the
    /// node still publishes.
    pub async fn drain(&mut self) {
        self.stop.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

//! A steady flow through another plugin: numbered messages from a back end to one client, each stamped by a filter.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::support::client::Client;
use crate::support::gateway::Gateway;

/// Time between two messages.
const PACE: Duration = Duration::from_millis(4);

/// Runs until it is stopped.
pub struct Flow {
    stop: watch::Sender<bool>,
    task: JoinHandle<Vec<Passed>>,
}

/// One message that arrived.
#[derive(Clone, Copy)]
pub struct Passed {
    pub sent: Instant,
    pub took: Duration,
}

impl Flow {
    /// To `client`, who is bound as `uid`.
    pub async fn start(gateway: &Gateway, mut client: Client, uid: &'static str) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut http = gateway.http().await;
        let task = tokio::spawn(async move {
            let mut passed = Vec::new();
            let mut pace = tokio::time::interval(PACE);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !*stopped.borrow() {
                pace.tick().await;
                let number = passed.len().to_string();
                let sent = Instant::now();
                let body = json!({"receiver": uid, "action": "flow", "content": {"number": number}});
                let told = http.post("/send", &body).await.data();
                assert_eq!(told["delivered"], 1, "message {number} went nowhere: {told}");
                let message = client.message().await;
                assert_eq!(message["content"]["number"], number, "lost, twice or out of order: {message}");
                assert_eq!(message["extra"]["version"], "v1", "it went around the filter: {message}");
                passed.push(Passed { sent, took: sent.elapsed() });
            }
            passed
        });
        Self { stop, task }
    }

    /// Ends it: everything that passed. A loss has failed the test by then.
    pub async fn stop(self) -> Vec<Passed> {
        self.stop.send(true).unwrap();
        self.task.await.expect("the flow lost nothing")
    }
}

/// The 99th percentile of what was sent in a span of time; with fewer than a hundred it is the worst.
pub fn p99(passed: &[Passed], begin: Instant, end: Instant) -> Duration {
    let mut times: Vec<Duration> =
        passed.iter().filter(|p| p.sent + p.took >= begin && p.sent < end).map(|p| p.took).collect();
    times.sort_unstable();
    let index = (times.len() * 99).div_ceil(100).saturating_sub(1);
    times.get(index).copied().unwrap_or_default()
}

//! A steady flow through another plugin: numbered messages from a back end to one client, each stamped by a filter.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::connect;
use crate::support::client::within;
use crate::support::gateway::Gateway;
use crate::support::http::Http;

/// Time between two messages.
const PACE: Duration = Duration::from_millis(2);

/// The client's token, which the tests' auth plugin uses as the user's name.
const UID: &str = "flow";

/// Runs on its own thread until it is stopped: work of the test must not look like delay of the node.
pub struct Flow {
    stop: watch::Sender<bool>,
    count: watch::Receiver<usize>,
    thread: JoinHandle<Vec<Passed>>,
}

/// One message that arrived.
#[derive(Clone, Copy)]
pub struct Passed {
    pub sent: Instant,
    pub took: Duration,
}

impl Flow {
    pub fn start(gateway: &Gateway) -> Self {
        let ((stop, stopped), (counted, count)) = (watch::channel(false), watch::channel(0));
        let (api, ws) = (gateway.address("api"), gateway.address("ws"));
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let thread = std::thread::spawn(move || runtime.block_on(run(api, ws, &stopped, &counted)));
        Self { stop, count, thread }
    }

    /// Waits until `messages` messages have passed.
    pub async fn has_passed(&mut self, messages: usize) {
        let many = self.count.wait_for(|count| *count >= messages);
        within("the messages of the flow", many).await.expect("the flow loses no message");
    }

    /// Stops the flow and returns every message that passed.
    pub fn stop(self) -> Vec<Passed> {
        self.stop.send(true).expect("the flow loses no message");
        self.thread.join().expect("the flow loses no message")
    }
}

/// Fails with the first lost message.
async fn run(
    api: SocketAddr,
    ws: SocketAddr,
    stopped: &watch::Receiver<bool>,
    counted: &watch::Sender<usize>,
) -> Vec<Passed> {
    let (mut client, _) = connect(ws, UID).await;
    let mut http = Http::connect(api).await;
    let mut passed = Vec::new();
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*stopped.borrow() {
        pace.tick().await;
        let number = passed.len().to_string();
        let sent = Instant::now();
        let body = json!({"receiver": UID, "action": "flow", "content": {"number": number}});
        let told = http.post("/send", &body).await.data();
        assert_eq!(told["delivered"], 1, "message {number} was not delivered: {told}");
        let message = client.message().await;
        assert_eq!(message["content"]["number"], number, "a message is lost, doubled or out of order: {message}");
        assert_eq!(message["extra"]["version"], "v1", "the filter did not judge the message: {message}");
        passed.push(Passed { sent, took: sent.elapsed() });
        counted.send_replace(passed.len());
    }
    passed
}

/// Times of the messages that were in flight during a period.
pub fn between(passed: &[Passed], begin: Instant, end: Instant) -> Vec<Duration> {
    passed.iter().filter(|p| p.sent + p.took >= begin && p.sent < end).map(|p| p.took).collect()
}

/// The 99th percentile; the maximum of fewer than a hundred values.
pub fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    let index = (times.len() * 99).div_ceil(100).saturating_sub(1);
    times.get(index).copied().unwrap_or_default()
}

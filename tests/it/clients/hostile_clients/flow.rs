//! A steady flow: numbered messages from a back end to one user, a thousand a second, each judged by every filter.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::interval;

use crate::support::client::{Client, Dial};
use crate::support::gateway::Gateway;
use crate::support::http::Http;
use crate::support::token::Claims;
use crate::support::wire::Form;

/// Time between two messages.
const PACE: Duration = Duration::from_millis(1);
/// Connections of the back end, used in turn.
const LANES: usize = 8;
const UID: &str = "steady";

/// The two ends of a flow.
pub struct MessageFlow {
    api: SocketAddr,
    ws: SocketAddr,
}

impl MessageFlow {
    pub fn new(gateway: &Gateway) -> Self {
        Self { api: gateway.address("api"), ws: gateway.address("ws") }
    }

    /// Sends `messages` messages and returns the time of each from its scheduled start to its arrival. Runs on its own
    /// thread: work of the test in the meantime must not look like delay of the node.
    pub async fn send(self, messages: usize) -> Vec<Duration> {
        let (done, took) = oneshot::channel();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let thread = thread::spawn(move || {
            let _ = done.send(runtime.block_on(self.run(messages)));
        });
        match took.await {
            Ok(took) => took,
            Err(_) => panic!(
                "a message of the flow was lost or refused: {:?}",
                thread.join().unwrap_err().downcast::<String>()
            ),
        }
    }

    async fn run(self, messages: usize) -> Vec<Duration> {
        let dial = Dial::path("/ws").header("authorization", format!("Bearer {}", Claims::of(UID).mint()));
        let mut client = Client::dial(self.ws, Form::YunquePb, dial).await.expect("the upgrade succeeds");
        assert_eq!(client.reply().await["code"], "200");
        let mut lanes = JoinSet::new();
        let mut turns = Vec::new();
        for _ in 0..LANES {
            let (turn, mine) = mpsc::channel(messages.max(1));
            lanes.spawn(lane(Http::connect(self.api).await, mine));
            turns.push(turn);
        }
        let begun = tokio::time::Instant::now() + PACE;
        let pace = tokio::spawn(async move {
            let mut pace = interval(PACE);
            for number in 0..messages {
                pace.tick().await;
                turns[number % LANES].send(number).await.expect("the lane still receives");
            }
        });
        let mut took = vec![None; messages];
        for _ in 0..messages {
            let message = client.message().await;
            let number: usize =
                message["content"]["number"].as_str().and_then(|n| n.parse().ok()).expect("the content has a number");
            // Delay counts from the scheduled start, regardless of earlier messages.
            let turn = begun.into_std() + PACE * u32::try_from(number).unwrap();
            assert!(
                took[number].replace(Instant::now().saturating_duration_since(turn)).is_none(),
                "message {number} arrived twice"
            );
        }
        pace.await.unwrap();
        while let Some(ended) = lanes.join_next().await {
            ended.unwrap();
        }
        client.close().await;
        took.into_iter().map(|took| took.expect("each message arrived")).collect()
    }
}

async fn lane(mut http: Http, mut turns: mpsc::Receiver<usize>) {
    while let Some(number) = turns.recv().await {
        let content = json!({"number": number.to_string(), "text": "an ordinary sentence"});
        let told = http.post("/send", &json!({"receiver": UID, "action": "flow", "content": content})).await.data();
        assert_eq!(told["delivered"], 1, "message {number} was refused: {told}");
    }
}

/// The 99th percentile; the maximum of fewer than a hundred values.
pub fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    let index = (times.len() * 99).div_ceil(100).saturating_sub(1);
    times.get(index).copied().unwrap_or_default()
}

//! Every response and every fault of the API, through [`Api::respond`], without a socket.

mod faults;
mod history;
mod lists;
mod manage;
mod pushes;

use std::sync::Arc;

use http_body_util::BodyExt;
use serde_json::Value;

use super::*;
use crate::config::{self, ApiKey};
use crate::node::fake::Fake;
use crate::server::ListenerAddress;
use crate::telemetry::Metrics;
use crate::telemetry::guests::GuestLog;

/// An API with a fake node.
struct Bench {
    fake: Fake,
    api: Arc<Api>,
    config: Config,
}

/// A response with its whole body.
#[derive(Debug)]
struct Got {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    fn data(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.json()["data"].take()
    }

    /// Status and text. The body must repeat the status.
    fn fault(&self) -> (u16, String) {
        let json = self.json();
        assert_eq!(json["code"], self.status, "{}", self.body);
        (self.status, json["message"].as_str().unwrap().to_owned())
    }
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::on(Fake::new, change)
    }

    /// An API with a node that keeps messages.
    fn with_history(change: impl FnOnce(&mut Config)) -> Self {
        Self::on(Fake::with_history, change)
    }

    fn on(node: impl FnOnce(&Config) -> Fake, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.limits.body_bytes = 4096;
        config.limits.batch = 4;
        config.limits.uids = 3;
        change(&mut config);
        let fake = node(&config);
        let metrics = Metrics::install();
        let address = "127.0.0.1:8080".parse().unwrap();
        let listeners = vec![ListenerAddress { address, serves: vec![Service::Ws, Service::Api], is_tls: false }];
        let about = About {
            listeners,
            metrics: Arc::new(move || metrics.render()),
            guests: GuestLog::default(),
            plugins: None,
        };
        let api = Arc::new(Api::new(Arc::clone(&fake.node), fake.config.clone(), about));
        Self { fake, api, config }
    }

    async fn send<B>(&self, request: Request<B>) -> Got
    where
        B: Body<Data = Bytes>,
        B::Error: Display,
    {
        self.send_to(request, &[Service::Api, Service::Metrics]).await
    }

    async fn send_to<B>(&self, request: Request<B>, serves: &[Service]) -> Got
    where
        B: Body<Data = Bytes>,
        B::Error: Display,
    {
        let answer = self.api.respond(request, "127.0.0.1:9".parse().unwrap(), serves).await;
        let (head, body) = answer.into_parts();
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Got { status: head.status.as_u16(), headers: head.headers, body }
    }

    async fn get(&self, path: &str) -> Got {
        self.send(Request::get(path).body(Full::<Bytes>::default()).unwrap()).await
    }

    async fn post(&self, path: &str, body: impl Into<Bytes>) -> Got {
        self.send(Request::post(path).body(Full::new(body.into())).unwrap()).await
    }
}

/// The future is allocated and freed with each request. Allocators have free lists for small sizes.
#[test]
fn the_future_of_a_request_is_small() {
    let bench = Bench::new();
    let peer = "127.0.0.1:9".parse().unwrap();
    let request = Request::post("/send").body(Full::<Bytes>::default()).unwrap();
    let bytes = size_of_val(&bench.api.respond(request, peer, &[]));
    println!("the future of a request: {bytes} bytes");
    assert!(bytes <= 1032, "{bytes} bytes");
}

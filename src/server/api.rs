//! The push API over HTTP: one table of routes, one shape of answers, one [`Node::publish`] per request.
//!
//! A request passes, in this order: path (404), method (405), key (401, 403), content type (415), size and time
//! (413, 408), body (400). Nothing of it happens before all of it is valid. `docs/http-api.md` is the reference.
//! Knows no socket and no listener: any `http_body::Body` will do, so tests need neither.

mod answer;
mod auth;
mod body;
mod lists;
mod manage;
mod meters;
mod push;
mod query;
mod report;
mod routes;
mod rows;
mod status;
#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body;
use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response};
use tokio::time::Instant;

pub use status::About;

use crate::config::{self, Config, Limits, Scope, Service};
use crate::node::Node;
use crate::protocol;
use answer::{Answer, Problem};
use auth::Keys;
use meters::Meters;
use routes::{Access, Action, Route};

/// The push API of one node.
pub struct Api {
    node: Arc<Node>,
    keys: ArcSwap<Keys>,
    limits: Limits,
    bounds: protocol::push::Limits,
    about: About,
    meters: Meters,
    started: Instant,
}

impl Api {
    /// Serves `node` as `config` says. A metrics recorder must be installed before, or the requests go uncounted.
    #[must_use]
    pub fn new(node: Arc<Node>, config: &Config, about: About) -> Self {
        Self {
            node,
            keys: ArcSwap::from_pointee(Keys::new(&config.api)),
            limits: config.limits.clone(),
            bounds: bounds(&config.limits),
            about,
            meters: Meters::new(),
            started: Instant::now(),
        }
    }

    /// Takes other keys from now on; requests under way keep what they passed.
    pub fn set_keys(&self, config: &config::Api) {
        self.keys.store(Arc::new(Keys::new(config)));
    }

    /// Answers one request that is no WebSocket upgrade. `serves` says which routes its listener has.
    pub async fn respond<B>(&self, request: Request<B>, peer: SocketAddr, serves: &[Service]) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes>,
        B::Error: Display,
    {
        let asked = Instant::now();
        let is_head = request.method() == Method::HEAD;
        let (head, body) = request.into_parts();
        let route = Route::find(&head.method, head.uri.path(), serves);
        let answered = match &route {
            Ok(route) => self.answer(route, &head, body, serves).await,
            Err(problem) => Err(problem.clone()),
        };
        let answer = answered.unwrap_or_else(|problem| {
            tracing::debug!(%peer, path = head.uri.path(), %problem, "request refused");
            problem.into()
        });
        self.meters.record(route.ok(), answer.status(), asked.elapsed());
        if is_head { without_body(answer) } else { answer }
    }

    async fn answer<B>(&self, route: &Route, head: &Parts, body: B, serves: &[Service]) -> Result<Answer, Problem>
    where
        B: Body<Data = Bytes>,
        B::Error: Display,
    {
        self.admit(route.access, &head.headers, serves)?;
        let query = head.uri.query();
        match route.action {
            Action::About => Ok(self.greet()),
            Action::Push(shape) => self.push(shape, head, body).await,
            Action::RoomJoin => self.join(head, body).await,
            Action::RoomLeave => self.leave(head, body).await,
            Action::Kick => self.kick(head, body).await,
            Action::OnlineUsers => self.online_users(query).await,
            Action::Connections => self.connections(query).await,
            Action::Rooms => self.rooms(query),
            Action::Plugins => self.plugins(query),
            Action::Nodes => self.nodes(query),
            Action::Live => Ok(Self::live()),
            Action::Ready => Ok(self.ready()),
            Action::Metrics => Ok(self.metrics()),
        }
    }

    fn admit(&self, access: Access, headers: &HeaderMap, serves: &[Service]) -> Result<(), Problem> {
        match access {
            Access::Open => Ok(()),
            Access::Probe if serves.contains(&Service::Metrics) => Ok(()),
            Access::Probe => self.keys.load().check(headers, Scope::Read),
            Access::Key(scope) => self.keys.load().check(headers, scope),
        }
    }
}

fn bounds(limits: &Limits) -> protocol::push::Limits {
    protocol::push::Limits { bytes: limits.body_bytes, messages: limits.batch, uids: limits.uids }
}

/// The answer to HEAD: as to GET, without its body.
fn without_body(answer: Answer) -> Answer {
    let (mut head, body) = answer.into_parts();
    let length = body.size_hint().exact().unwrap_or_default();
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    Response::from_parts(head, Full::default())
}

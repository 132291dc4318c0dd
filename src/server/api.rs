//! The push API over HTTP: one table of routes, one response format, one [`Node::publish`] per request.
//!
//! A request passes these checks in order: path (404), method (405), key (401, 403), content type (415), size and time
//! (413, 408), body (400). No part of it is executed before all of it is valid. Reference:
//! `docs/reference/http-api.md`.
//! Independent of sockets and listeners: it accepts any `http_body::Body`, so tests need neither.

mod answer;
mod auth;
mod body;
mod history;
mod lists;
mod manage;
mod meters;
mod nodes;
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

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body;
use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response};
use tokio::time::Instant;

pub use status::About;

use crate::config::{Config, LiveConfig, Scope, Service};
use crate::node::Node;
use crate::telemetry::{capped, may_log, without_value};
use answer::{Answer, Problem};
use auth::{KeyNumber, Keys};
use meters::Meters;
use routes::{Access, Action, Route};

/// The push API of one node.
pub struct Api {
    node: Arc<Node>,
    config: LiveConfig,
    about: About,
    meters: Meters,
}

impl Api {
    /// Creates the API of `node`. It follows the keys and limits of `config`; a running request keeps those of its start.
    /// Without a metrics recorder installed before, requests are not counted.
    #[must_use]
    pub fn new(node: Arc<Node>, config: LiveConfig, about: About) -> Self {
        Self { node, config, about, meters: Meters::new() }
    }

    /// Answers one request that is not a WebSocket upgrade. `serves` selects the routes of its listener.
    ///
    /// The future is boxed and freed with each request, so it owns its data and is kept small. An `async fn` would hold
    /// its arguments and its locals side by side.
    pub fn respond<B>(
        self: &Arc<Self>,
        request: Request<B>,
        peer: SocketAddr,
        serves: &[Service],
    ) -> impl Future<Output = Response<Full<Bytes>>> + use<B>
    where
        B: Body<Data = Bytes>,
        B::Error: Display,
    {
        let started = Instant::now();
        let (head, body) = request.into_parts();
        let (api, config) = (Arc::clone(self), self.config.load_full());
        let found = Route::find(&head.method, head.uri.path(), serves);
        let route = found.as_ref().ok().copied();
        let authorized = found.and_then(|route| {
            let key = authorize(&config, route.access, &head.headers, serves)?;
            Ok((route.action, key))
        });
        let sees_details = route.is_some_and(|route| route.action == Action::Ready)
            && Keys(&config.api).may_see_details(&head.headers, serves.contains(&Service::Api));
        async move {
            let answered = match authorized {
                Ok((Action::Ready, _)) => Ok(api.ready(sees_details)),
                Ok((action, key)) => api.answer(action, key, &config, &head, body).await,
                Err(problem) => Err(problem),
            };
            let answer = answered.unwrap_or_else(|problem| {
                if may_log(peer.ip()) {
                    let path = head.uri.path();
                    tracing::debug!(%peer, path = capped(path), problem = without_value(&problem), "request refused");
                }
                problem.into()
            });
            api.meters.record(route, answer.status(), started.elapsed());
            if head.method == Method::HEAD { without_body(answer) } else { answer }
        }
    }

    async fn answer<B>(
        &self,
        action: Action,
        key: Option<KeyNumber>,
        config: &Config,
        head: &Parts,
        body: B,
    ) -> Result<Answer, Problem>
    where
        B: Body<Data = Bytes>,
        B::Error: Display,
    {
        let query = head.uri.query();
        match action {
            Action::About => Ok(self.about()),
            // Boxed, so that the futures of all other requests stay small.
            Action::Push(push_kind) => Box::pin(self.push(push_kind, key, config, head, body)).await,
            // These are rare, and larger than the frequent requests.
            Action::RoomJoin => Box::pin(self.join(config, head, body)).await,
            Action::RoomLeave => Box::pin(self.leave(config, head, body)).await,
            Action::Kick => Box::pin(self.kick(config, head, body)).await,
            Action::Forget => Box::pin(self.forget(config, head, body)).await,
            Action::History => Box::pin(self.history(query)).await,
            Action::OnlineUsers => Box::pin(self.online_users(query)).await,
            Action::Connections => Box::pin(self.connections(query)).await,
            Action::Rooms => Box::pin(self.rooms(query)).await,
            Action::Plugins => self.plugins(query),
            Action::PluginLog => self.plugin_log(head),
            Action::Plugin(command) => self.command_plugin(command, head).await,
            Action::Nodes => Box::pin(self.nodes(query)).await,
            Action::Choose => Box::pin(self.choose(query)).await,
            Action::Live => Ok(Self::live()),
            Action::Ready => Ok(self.ready(false)),
            Action::Metrics => Ok(self.metrics_page()),
        }
    }
}

/// Admits a request to a route and returns its key, if the route asks for one.
fn authorize(
    config: &Config,
    access: Access,
    headers: &HeaderMap,
    serves: &[Service],
) -> Result<Option<KeyNumber>, Problem> {
    let keys = Keys(&config.api);
    match access {
        Access::Open => Ok(None),
        Access::Probe if serves.contains(&Service::Metrics) => Ok(None),
        Access::Probe => keys.check(headers, Scope::Read),
        Access::Key(scope) => keys.check(headers, scope),
    }
}

/// The response to HEAD: as to GET, without the body.
fn without_body(answer: Answer) -> Answer {
    let (mut head, body) = answer.into_parts();
    let length = body.size_hint().exact().unwrap_or_default();
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    Response::from_parts(head, Full::default())
}

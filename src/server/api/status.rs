//! Status of this node: `/`, `/health/*`, `/plugins`, `/metrics`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::StatusCode;
use hyper::http::request::Parts;
use serde::Serialize;

use super::Api;
use super::answer::{self, Answer, Problem};
use super::query::Query;
use crate::server::ListenerAddress;
use crate::telemetry::guests::{GuestLine, GuestLog};

/// Data for the status pages that the node itself does not have.
pub struct About {
    /// Addresses of the listeners and their services.
    pub listeners: Vec<ListenerAddress>,
    /// Renders the current page for Prometheus.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// The newest log lines of plugins.
    pub guests: GuestLog,
    /// Absolute path of the plugin directory on the node's machine; `None` without one.
    pub plugins: Option<PathBuf>,
}

impl Api {
    pub(super) fn about(&self) -> Answer {
        answer::ok(AboutRow {
            name: "skylark",
            version: env!("CARGO_PKG_VERSION"),
            what: "a real-time message gateway: clients connect by WebSocket at /ws, back ends push by POST /send",
            node: self.node.id().as_str(),
            docs: "docs/reference/http-api.md",
        })
    }

    pub(super) fn live() -> Answer {
        answer::ok(HealthRow { status: "live", reasons: Vec::new() })
    }

    /// Reasons contain addresses and errors of engines. Callers without permission get only the text before the first
    /// colon.
    pub(super) fn ready(&self, sees_details: bool) -> Answer {
        match self.node.readiness() {
            Ok(()) => answer::ok(HealthRow { status: "ready", reasons: Vec::new() }),
            Err(mut reasons) => {
                if !sees_details {
                    reasons.iter_mut().for_each(|reason| reason.truncate(reason.find(": ").unwrap_or(reason.len())));
                    reasons.dedup();
                }
                let message = format!("not ready: {}", reasons.join("; "));
                let state = HealthRow { status: "not ready", reasons };
                answer::with_status(StatusCode::SERVICE_UNAVAILABLE, &message, Some(state))
            }
        }
    }

    /// The kept log lines of the plugin named in the path, from a line number on.
    pub(super) fn plugin_log(&self, head: &Parts) -> Result<Answer, Problem> {
        let query = Query::parse(head.uri.query(), &["since"])?;
        let since = query.number("since", 0..=u64::MAX)?.unwrap_or_default();
        let name = head.uri.path().split('/').nth(2).unwrap_or_default();
        // Lines logged in between are returned by the next request.
        let next = self.about.guests.next();
        let lines = self.about.guests.since(since).into_iter().filter(|line| line.plugin == name && line.number < next);
        Ok(answer::ok(PluginLog { items: lines.collect(), next }))
    }

    pub(super) fn plugins(&self, query: Option<&str>) -> Result<Answer, Problem> {
        Query::parse(query, &[])?;
        Ok(answer::ok(Plugins { items: self.node.plugins(), dir: self.about.plugins.as_deref() }))
    }

    pub(super) fn metrics_page(&self) -> Answer {
        answer::plain(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", (self.about.metrics)())
    }
}

#[derive(Serialize)]
struct AboutRow<'a> {
    name: &'static str,
    version: &'static str,
    what: &'static str,
    node: &'a str,
    docs: &'static str,
}

#[derive(Serialize)]
struct HealthRow {
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
}

#[derive(Serialize)]
struct Plugins<'a> {
    items: Vec<crate::node::Status>,
    dir: Option<&'a Path>,
}

#[derive(Serialize)]
pub(super) struct Items<T> {
    pub(super) items: Vec<T>,
}

#[derive(Serialize)]
struct PluginLog {
    items: Vec<GuestLine>,
    /// Value of `since` for the next request.
    next: u64,
}

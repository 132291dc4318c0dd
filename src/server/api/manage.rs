//! Changes to rooms and connections (`/room/join`, `/room/leave`, `/kick`) and plugin commands (`/plugins/{name}/…`).

use std::fmt::Display;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::Body;
use hyper::http::request::Parts;
use serde::Serialize;

use super::answer::{self, Answer, Problem};
use super::query::{Query, fault};
use super::rows::{text, texts};
use super::{Api, body};
use crate::config::Config;
use crate::disconnect::Disconnect;
use crate::id::{NodeId, Room, Uid};
use crate::message::Target;
use crate::node::cluster::{Changed, Kicked};
use crate::node::{PluginCommand, PluginCommandFault};
use crate::protocol::push::{self, RoomChange};
use crate::server::bounds;

impl Api {
    pub(super) async fn join<B>(&self, config: &Config, head: &Parts, body: B) -> Result<Answer, Problem>
    where
        B: Body<Data = Bytes>,
        B::Error: Display,
    {
        let change = push::room_change(&plain_body(config, head, body).await?, &bounds(&config.limits))?;
        let changed = self.node.join_room(&change.target, &change.room).await;
        Ok(answer::ok(RoomChangeRow { joined: changed.changed, ..RoomChangeRow::of(&change, changed) }))
    }

    pub(super) async fn leave<B>(&self, config: &Config, head: &Parts, body: B) -> Result<Answer, Problem>
    where
        B: Body<Data = Bytes>,
        B::Error: Display,
    {
        let change = push::room_change(&plain_body(config, head, body).await?, &bounds(&config.limits))?;
        let changed = self.node.leave_room(&change.target, &change.room).await;
        Ok(answer::ok(RoomChangeRow { left: changed.changed, ..RoomChangeRow::of(&change, changed) }))
    }

    pub(super) async fn kick<B>(&self, config: &Config, head: &Parts, body: B) -> Result<Answer, Problem>
    where
        B: Body<Data = Bytes>,
        B::Error: Display,
    {
        let kick = push::kick(&plain_body(config, head, body).await?, &bounds(&config.limits))?;
        let reason = match kick.reason.len() {
            0 => Disconnect::KICKED.reason,
            1..=MAX_REASON_BYTES => &kick.reason,
            bytes => return Err(fault("reason", format!("at most {MAX_REASON_BYTES} bytes"), bytes)),
        };
        let Kicked { closed, missing } = self.node.kick(&kick.target, reason).await;
        Ok(answer::ok(KickRow { closed, missing }))
    }

    /// Sends a command to the plugin named in the path. The body is ignored and not read.
    pub(super) async fn command_plugin(&self, command: PluginCommand, head: &Parts) -> Result<Answer, Problem> {
        Query::parse(head.uri.query(), &[])?;
        let name: String = head.uri.path().split('/').nth(2).unwrap_or_default().chars().take(MAX_NAME_CHARS).collect();
        let answer = self.node.command_plugin(&name, command).await;
        answer.map(answer::ok).map_err(|fault| {
            let status = match fault {
                PluginCommandFault::Unknown => StatusCode::NOT_FOUND,
                PluginCommandFault::NotPossible(_) => StatusCode::CONFLICT,
                PluginCommandFault::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            };
            Problem::new(status, format!("plugin {name}: {fault}"))
        })
    }
}

/// Reads the body of a request without parameters.
pub(super) async fn plain_body<B>(config: &Config, head: &Parts, body: B) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes>,
    B::Error: Display,
{
    Query::parse(head.uri.query(), &[])?;
    let kind = body::kind(&head.headers, false)?;
    body::read(body, kind, &config.limits).await
}

/// Result of a room change, in connections.
#[derive(Serialize)]
struct RoomChangeRow<'a> {
    #[serde(serialize_with = "text")]
    room: &'a Room,
    joined: usize,
    left: usize,
    /// Connections that were already in the requested state.
    unchanged: usize,
    #[serde(serialize_with = "texts")]
    offline: Vec<Uid>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refused: Vec<Refused>,
    /// Nodes that did not answer. Their part may be done or not.
    #[serde(serialize_with = "texts", skip_serializing_if = "<[_]>::is_empty")]
    missing: Vec<NodeId>,
}

impl<'a> RoomChangeRow<'a> {
    fn of(change: &'a RoomChange, changed: Changed) -> Self {
        let named = match &change.target {
            Target::User(uid) | Target::ConnectionOf(uid, _) => std::slice::from_ref(uid),
            Target::Users(uids) => uids,
            _ => &[],
        };
        let refused = changed.refused.into_iter().map(|one| Refused {
            cid: one.cid.as_u64(),
            code: one.refusal.code.to_string(),
            reason: one.refusal.reason,
        });
        Self {
            room: &change.room,
            joined: 0,
            left: 0,
            unchanged: changed.unchanged,
            offline: named.iter().filter(|uid| !changed.here.contains(*uid)).cloned().collect(),
            refused: refused.collect(),
            missing: changed.missing,
        }
    }
}

#[derive(Serialize)]
struct Refused {
    cid: u64,
    code: String,
    reason: String,
}

#[derive(Serialize)]
struct KickRow {
    closed: usize,
    /// Nodes that did not answer. Their connections may be closed or not.
    #[serde(serialize_with = "texts", skip_serializing_if = "<[_]>::is_empty")]
    missing: Vec<NodeId>,
}

/// Longer names belong to no plugin.
const MAX_NAME_CHARS: usize = 64;
/// Enough for one sentence to a user.
const MAX_REASON_BYTES: usize = 1024;

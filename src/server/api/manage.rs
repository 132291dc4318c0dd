//! What changes who is where, `/room/join`, `/room/leave`, `/kick`, and which plugins serve, `/plugins/{name}/…`.

use std::fmt::Display;

use ahash::AHashSet;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::Body;
use hyper::http::request::Parts;
use serde::Serialize;

use super::answer::{self, Answer, Problem};
use super::query::{Query, fault};
use super::rows::{text, texts};
use super::{Api, Rules, body};
use crate::disconnect::Disconnect;
use crate::id::{Room, Uid};
use crate::message::Target;
use crate::node::{Connection, Word, WordFault};
use crate::protocol::push::{self, RoomChange};

impl Api {
    pub(super) async fn join<B>(&self, rules: &Rules, head: &Parts, body: B) -> Result<Answer, Problem>
    where
        B: Body<Data = Bytes>,
        B::Error: Display,
    {
        let change = push::room_change(&plain_body(rules, head, body).await?, &rules.bounds)?;
        let (mut told, connections) = self.named(&change);
        for connection in &connections {
            match self.node.join(connection, change.room.clone()).await {
                Ok(true) => told.joined += 1,
                Ok(false) => told.unchanged += 1,
                Err(refusal) => told.refused.push(Refused {
                    cid: connection.id().as_u64(),
                    code: refusal.code,
                    reason: refusal.reason,
                }),
            }
        }
        Ok(answer::ok(told))
    }

    pub(super) async fn leave<B>(&self, rules: &Rules, head: &Parts, body: B) -> Result<Answer, Problem>
    where
        B: Body<Data = Bytes>,
        B::Error: Display,
    {
        let change = push::room_change(&plain_body(rules, head, body).await?, &rules.bounds)?;
        let (mut told, connections) = self.named(&change);
        for connection in &connections {
            if self.node.leave(connection, &change.room).await {
                told.left += 1;
            } else {
                told.unchanged += 1;
            }
        }
        Ok(answer::ok(told))
    }

    pub(super) async fn kick<B>(&self, rules: &Rules, head: &Parts, body: B) -> Result<Answer, Problem>
    where
        B: Body<Data = Bytes>,
        B::Error: Display,
    {
        let kick = push::kick(&plain_body(rules, head, body).await?, &rules.bounds)?;
        let words = match kick.reason.len() {
            0 => Disconnect::KICKED.reason,
            1..=MAX_REASON_BYTES => &kick.reason,
            bytes => return Err(fault("reason", format!("at most {MAX_REASON_BYTES} bytes"), bytes)),
        };
        let closed = self.node.kick(&kick.target, Disconnect::KICKED, words).await;
        Ok(answer::ok(Kicked { closed }))
    }

    /// A word about the plugin that stands in the path; a body says nothing more and is not read.
    pub(super) async fn tell_plugin(&self, word: Word, head: &Parts) -> Result<Answer, Problem> {
        Query::parse(head.uri.query(), &[])?;
        let name: String = head.uri.path().split('/').nth(2).unwrap_or_default().chars().take(MAX_NAME_CHARS).collect();
        let told = self.node.tell_plugin(&name, word).await;
        told.map(answer::ok).map_err(|fault| {
            let status = match fault {
                WordFault::Unknown => StatusCode::NOT_FOUND,
                WordFault::Unfit(_) => StatusCode::CONFLICT,
                WordFault::Ending => StatusCode::SERVICE_UNAVAILABLE,
            };
            Problem::new(status, format!("plugin {name}: {fault}"))
        })
    }

    /// The connections that are meant, and the answer before anything has changed: who of those named is not here.
    fn named<'a>(&self, change: &'a RoomChange) -> (Told<'a>, Vec<Connection>) {
        let connections = self.node.connections_of(&change.target);
        let here: AHashSet<Uid> = connections.iter().filter_map(|c| c.binding().map(|b| b.uid.clone())).collect();
        let named = match &change.target {
            Target::User(uid) => std::slice::from_ref(uid),
            Target::Users(uids) => uids,
            _ => &[],
        };
        let offline = named.iter().filter(|uid| !here.contains(*uid)).cloned().collect();
        let told = Told { room: &change.room, joined: 0, left: 0, unchanged: 0, offline, refused: Vec::new() };
        (told, connections)
    }
}

async fn plain_body<B>(rules: &Rules, head: &Parts, body: B) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes>,
    B::Error: Display,
{
    Query::parse(head.uri.query(), &[])?;
    let kind = body::kind(&head.headers, false)?;
    body::read(body, kind, &rules.limits).await
}

/// What a room change did, in connections.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(serialize_with = "text")]
    room: &'a Room,
    joined: usize,
    left: usize,
    /// Were where they were to be already.
    unchanged: usize,
    #[serde(serialize_with = "texts")]
    offline: Vec<Uid>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refused: Vec<Refused>,
}

#[derive(Serialize)]
struct Refused {
    cid: u64,
    code: String,
    reason: String,
}

#[derive(Serialize)]
struct Kicked {
    closed: usize,
}

/// No plugin has a longer name.
const MAX_NAME_CHARS: usize = 64;
/// Enough for a sentence to show to a user.
const MAX_REASON_BYTES: usize = 1024;

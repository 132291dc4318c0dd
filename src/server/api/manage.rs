//! What changes who is where: `/room/join`, `/room/leave`, `/kick`.

use std::fmt::Display;

use bytes::Bytes;
use hyper::body::Body;
use hyper::http::request::Parts;
use serde::Serialize;

use super::answer::{self, Answer, Problem};
use super::fields::Fields;
use super::query::{Query, fault};
use super::rows::{text, texts};
use super::{Api, body};
use crate::disconnect::Disconnect;
use crate::id::{Device, Room, Uid};
use crate::message::Target;
use crate::node::Connection;

impl Api {
    pub(super) async fn join<B>(&self, head: &Parts, body: B) -> Result<Answer, Problem>
    where
        B: Body<Data = Bytes>,
        B::Error: Display,
    {
        let change = RoomChange::parse(&self.fields(head, body).await?, self.limits.uids)?;
        let connections = self.node.connections_of(&change.target);
        let mut told = change.told(&connections);
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

    pub(super) async fn leave<B>(&self, head: &Parts, body: B) -> Result<Answer, Problem>
    where
        B: Body<Data = Bytes>,
        B::Error: Display,
    {
        let change = RoomChange::parse(&self.fields(head, body).await?, self.limits.uids)?;
        let connections = self.node.connections_of(&change.target);
        let mut told = change.told(&connections);
        for connection in &connections {
            if self.node.leave(connection, &change.room).await {
                told.left += 1;
            } else {
                told.unchanged += 1;
            }
        }
        Ok(answer::ok(told))
    }

    pub(super) async fn kick<B>(&self, head: &Parts, body: B) -> Result<Answer, Problem>
    where
        B: Body<Data = Bytes>,
        B::Error: Display,
    {
        let fields = self.fields(head, body).await?;
        let target = match (fields.target(None)?, fields.name("device", Device::parse)?) {
            (Target::User(uid), Some(device)) => Target::Device(uid, device),
            (_, Some(_)) => return Err(fault("device", "to stand beside uid only", "it beside cid")),
            (target, None) => target,
        };
        let words = fields.text("reason", MAX_REASON_BYTES)?.unwrap_or(Disconnect::KICKED.reason);
        let closed = self.node.kick(&target, Disconnect::KICKED, words).await;
        Ok(answer::ok(Kicked { closed }))
    }

    async fn fields<B>(&self, head: &Parts, body: B) -> Result<Fields, Problem>
    where
        B: Body<Data = Bytes>,
        B::Error: Display,
    {
        Query::parse(head.uri.query(), &[])?;
        let kind = body::kind(&head.headers, false)?;
        Fields::parse(&body::read(body, kind, &self.limits).await?)
    }
}

struct RoomChange {
    room: Room,
    target: Target,
}

impl RoomChange {
    fn parse(fields: &Fields, most: usize) -> Result<Self, Problem> {
        Ok(Self { room: fields.required("room", Room::parse)?, target: fields.target(Some(most))? })
    }

    /// The answer before anything has changed: who of those named is not here.
    fn told<'a>(&'a self, connections: &[Connection]) -> Told<'a> {
        let here: ahash::AHashSet<Uid> =
            connections.iter().filter_map(|c| c.binding().map(|b| b.uid.clone())).collect();
        let named = match &self.target {
            Target::User(uid) => std::slice::from_ref(uid),
            Target::Users(uids) => uids,
            _ => &[],
        };
        let offline = named.iter().filter(|uid| !here.contains(*uid)).cloned().collect();
        Told { room: &self.room, joined: 0, left: 0, unchanged: 0, offline, refused: Vec::new() }
    }
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

/// A WebSocket close frame carries no more beside its code.
const MAX_REASON_BYTES: usize = 123;

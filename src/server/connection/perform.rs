//! Performs the actions of the session through the node, and feeds results back until the session returns no more.
//!
//! Makes no decisions: permissions of a client are checked by the session and the node.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::Driver;
use crate::claim::{Admission, Claim, Refusal};
use crate::clock;
use crate::code::Code;
use crate::node::{Node, Resumed, RoomJoin};
use crate::protocol::{self, Reply, ServerFrame};
use crate::session::{Action, BoundUser, ClientLocation, Input, JoinOutcome, Rules};
use crate::telemetry::{capped, names};

impl Driver {
    /// Feeds an input and performs all resulting actions. Boxed, because the future is large and idle connections do
    /// not need it.
    pub(super) fn feed(&mut self, input: Input) -> BoxFuture<'_, ()> {
        async move {
            let mut actions = VecDeque::from(self.step(input));
            while let Some(action) = actions.pop_front() {
                if let Some(outcome) = self.perform(action).await {
                    actions.extend(self.step(outcome));
                }
            }
            if let Some(replay) = self.replay.take() {
                // A task of its own: the reader must go on, since it handles the client's PONGs.
                tokio::spawn(replay.run());
            }
        }
        .boxed()
    }

    fn step(&mut self, input: Input) -> Vec<Action> {
        let rules = {
            let config = self.permit.gateway().config.load();
            Rules {
                publish: config.clients.publish,
                unbound: config.limits.unbound,
                unbound_max: config.limits.unbound_max,
            }
        };
        let binding = self.connection.binding();
        let bound_user = binding.as_deref().map(|bound| BoundUser { uid: &bound.uid, expires: bound.expires });
        self.session.on(input, bound_user, clock::now_millis(), &rules)
    }

    async fn perform(&mut self, action: Action) -> Option<Input> {
        let node = Arc::clone(&self.permit.gateway().node);
        Some(match action {
            Action::Reply(reply) => {
                self.send_reply(reply).await;
                return None;
            }
            Action::Admit(claim) => Input::Admitted(self.admit(&node, *claim).await),
            Action::Bind(admission, facts) => {
                let bound = node.bind(&self.connection, *admission, facts).await;
                Input::Bound(bound.map(|resumed| self.bound(&node, resumed)))
            }
            Action::Rebind(facts) => {
                let bound = node.rebind(&self.connection, facts).await;
                Input::Bound(bound.map(|resumed| self.bound(&node, resumed)))
            }
            Action::Handle { key, data } => {
                let remote = &self.start.transport.remote;
                Input::Handled(node.handle(&self.connection, key, data, remote).await)
            }
            Action::Join(room, data, replay) => {
                let joined = node.request_join(&self.connection, room, data, replay).await;
                Input::Joined(joined.map(|RoomJoin { changed, resumed }| JoinOutcome {
                    changed,
                    resume: resumed.map(|resumed| self.note(resumed)),
                }))
            }
            Action::Leave(room) => Input::Left(node.leave(&self.connection, &room).await),
            Action::Publish(message) => Input::Published(node.publish_from(&self.connection, *message).await),
            Action::SetTag(tag) => {
                self.connection.set_tag(tag);
                return None;
            }
            Action::Extend(time) => {
                self.connection.extend_unbound(time);
                return None;
            }
            Action::Close(why) => {
                self.connection.close(why).await;
                return None;
            }
        })
    }

    async fn send_reply(&self, reply: Reply) {
        let Some(form) = self.connection.form() else { return };
        let frame = protocol::encode(form, ServerFrame::Reply(&reply)).or_else(|error| {
            // The client chooses the key: it may be long, hold any bytes, and repeat at any rate.
            if self.may_log() {
                tracing::debug!(key = capped(&reply.key), %error, "reply does not fit a frame");
            }
            let message = format!("the reply does not fit a frame: {error}");
            let short = Reply { code: Code::INTERNAL.to_string(), message, data: Default::default(), ..reply };
            protocol::encode(form, ServerFrame::Reply(&short))
        });
        match frame {
            Ok(frame) => drop::<bool>(self.connection.send(frame).await),
            Err(error) if self.may_log() => tracing::debug!(%error, "error reply does not fit a frame"),
            Err(_) => {}
        }
    }

    async fn admit(&self, node: &Node, claim: Claim) -> Result<Box<Admission>, Refusal> {
        let mut transport = self.start.transport.clone();
        transport.bound = self.connection.binding().map(|bound| bound.uid.clone());
        let answer = node.admit(transport, claim).await;
        let outcome = if answer.is_ok() { "admitted" } else { "refused" };
        metrics::counter!(names::ADMISSIONS, "outcome" => outcome).increment(1);
        answer.map(Box::new)
    }

    fn bound(&mut self, node: &Node, resumed: Option<Resumed>) -> ClientLocation {
        let resume = resumed.map(|resumed| self.note(resumed));
        ClientLocation { resume, ..self.location(node) }
    }

    /// Notes the replay, which begins once the answer is queued. Returns the answer.
    fn note(&mut self, Resumed { answer, replay }: Resumed) -> String {
        self.replay = Some(Box::new(replay));
        answer
    }

    fn location(&self, node: &Node) -> ClientLocation {
        let address = self.permit.gateway().config.load().node.address.clone();
        let address = if address.is_empty() { self.own_address() } else { address };
        let binding = self.connection.binding();
        let next = node.next_address(binding.as_deref().map(|bound| &bound.uid), self.start.ip());
        ClientLocation { cid: self.connection.id(), node: node.id().clone(), address, next, resume: None }
    }

    /// The local address of the socket, which the client connected to as far as this node can see.
    fn own_address(&self) -> String {
        self.reader.stream().local_addr().map(|a| a.to_string()).unwrap_or_default()
    }
}

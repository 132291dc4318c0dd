//! Who is here: `/getOnlineUser`, `/connections`, `/rooms`, page by page.
//!
//! Two ways to page. `page` counts from 1 and shifts when somebody comes or goes. `cursor` is the last thing that the
//! caller has seen: connection ids only grow, so whoever stays connected is never missed. Knows no HTTP beyond the query.

use std::sync::Arc;

use ahash::AHashMap;
use serde::Serialize;

use super::Api;
use super::answer::{self, Answer, Problem};
use super::query::{Query, fault};
use super::rows::{ConnectionRow, RoomRow, UserRow};
use crate::id::{ConnectionId, Device, MAX_SAFE_INTEGER, Room, Uid};
use crate::node::{Binding, Connection};

/// A connection with the binding that it had when it was looked at.
pub(super) type Bound = (Connection, Arc<Binding>);

impl Api {
    pub(super) async fn online_users(&self, query: Option<&str>) -> Result<Answer, Problem> {
        let query = Query::parse(query, LIST_PARAMETERS)?;
        let (filter, window) = (Filter::parse(&query)?, Window::parse(&query, parse_cid)?);
        let found = self.scan(&filter, &window, Unit::User).await;
        let items: Vec<_> = found.rows.iter().map(|(_, b)| UserRow::new(self.user_matching(&b.uid, &filter))).collect();
        Ok(answer::ok(window.page_of(&found.counts, found.counts.users, found.next(), items)))
    }

    pub(super) async fn connections(&self, query: Option<&str>) -> Result<Answer, Problem> {
        let query = Query::parse(query, LIST_PARAMETERS)?;
        let (filter, window) = (Filter::parse(&query)?, Window::parse(&query, parse_cid)?);
        let found = self.scan(&filter, &window, Unit::Connection).await;
        let items: Vec<_> = found.rows.iter().map(ConnectionRow::new).collect();
        Ok(answer::ok(window.page_of(&found.counts, found.counts.connections, found.next(), items)))
    }

    pub(super) fn rooms(&self, query: Option<&str>) -> Result<Answer, Problem> {
        let query = Query::parse(query, PAGE_PARAMETERS)?;
        let window = Window::parse(&query, |query| query.name("cursor", Room::parse))?;
        let mut rooms = self.node.rooms();
        rooms.sort_unstable();
        let total = rooms.len();
        let start = match &window.place {
            Place::Page(page) => window.skipped(*page).min(total),
            Place::After(last) => rooms.partition_point(|(room, _)| room <= last),
        };
        let end = start.saturating_add(window.size).min(total);
        let next = (start < end && end < total).then(|| rooms[end - 1].0.to_string());
        let items: Vec<_> = rooms[start..end].iter().map(|(room, n)| RoomRow { room, connections: *n }).collect();
        Ok(answer::ok(window.page_of(&RoomCounts { rooms: total }, total, next, items)))
    }

    /// Walks the connections in the order of their ids and keeps those of the window. Counts what matches the filter;
    /// without a filter the node knows the counts, and the walk ends with the window.
    async fn scan(&self, filter: &Filter, window: &Window<u64>, unit: Unit) -> Found {
        let (mut skip, after) = match window.place {
            Place::Page(page) => (window.skipped(page), 0),
            Place::After(cid) => (0, cid),
        };
        let counted = filter.is_empty().then(|| self.node.counts());
        let mut walk = self.walk(filter, if counted.is_some() { after } else { 0 });
        let mut firsts = Firsts::default();
        let mut found = Found::default();
        loop {
            let chunk = self.next_chunk(&mut walk, filter);
            if chunk.is_empty() {
                break;
            }
            for bound in chunk {
                let cid = bound.0.id();
                let first = matches!(unit, Unit::User) || counted.is_none();
                let first = first && firsts.of(&bound.1.uid, || self.user_matching(&bound.1.uid, filter)) == Some(cid);
                found.counts.connections += 1;
                found.counts.users += usize::from(first);
                if (matches!(unit, Unit::User) && !first) || cid.as_u64() <= after {
                    continue;
                }
                if skip > 0 {
                    skip -= 1;
                } else if found.rows.len() < window.size {
                    found.rows.push(bound);
                } else {
                    found.more = true;
                }
            }
            if found.more && counted.is_some() {
                break;
            }
            // A long walk must not keep a worker from its sockets.
            tokio::task::yield_now().await;
        }
        if let Some((users, connections)) = counted {
            found.counts = Counts { users, connections };
        }
        found
    }

    fn walk(&self, filter: &Filter, after: u64) -> Walk {
        let named = match filter {
            Filter { uid: Some(uid), .. } => Some(self.node.user(uid.as_str())),
            Filter { room: Some(room), .. } => Some(self.node.room(room.as_str())),
            _ => None,
        };
        Walk { named, after, ended: false }
    }

    fn next_chunk(&self, walk: &mut Walk, filter: &Filter) -> Vec<Bound> {
        while !walk.ended {
            let mut chunk = match walk.named.take() {
                Some(mut all) => {
                    walk.ended = true;
                    all.retain(|c| c.id().as_u64() > walk.after);
                    all.sort_unstable_by_key(Connection::id);
                    all
                }
                None => self.node.page(walk.after, CHUNK),
            };
            match chunk.last() {
                Some(last) => walk.after = last.id().as_u64(),
                None => walk.ended = true,
            }
            chunk.retain(|c| filter.room.as_ref().is_none_or(|room| c.rooms().contains(room)));
            let matching: Vec<_> = chunk.into_iter().filter_map(|c| filter.bound(c)).collect();
            if !matching.is_empty() {
                return matching;
            }
        }
        Vec::new()
    }

    /// The user's connections that match, lowest id first.
    fn user_matching(&self, uid: &Uid, filter: &Filter) -> Vec<Bound> {
        let mut all = self.node.user(uid.as_str());
        all.retain(|c| filter.room.as_ref().is_none_or(|room| c.rooms().contains(room)));
        all.sort_unstable_by_key(Connection::id);
        all.into_iter().filter_map(|c| filter.bound(c)).collect()
    }
}

/// What each entry of a list is.
#[derive(Debug, Clone, Copy)]
enum Unit {
    /// A user, at the place of the first of its connections.
    User,
    Connection,
}

/// Which connections are meant; all that is given must fit.
#[derive(Debug, Default)]
struct Filter {
    uid: Option<Uid>,
    room: Option<Room>,
    device: Option<Device>,
    channel: Option<String>,
}

impl Filter {
    fn parse(query: &Query) -> Result<Self, Problem> {
        Ok(Self {
            uid: query.name("uid", Uid::parse)?,
            room: query.name("room", Room::parse)?,
            device: query.name("device", Device::parse)?,
            channel: query.text("channel").map(str::to_owned),
        })
    }

    fn is_empty(&self) -> bool {
        self.uid.is_none() && self.room.is_none() && self.device.is_none() && self.channel.is_none()
    }

    /// The connection with its binding, if that fits (the room is looked at elsewhere: it costs more).
    fn bound(&self, connection: Connection) -> Option<Bound> {
        let binding = connection.binding()?;
        let fits = self.uid.as_ref().is_none_or(|uid| binding.uid == *uid)
            && self.device.as_ref().is_none_or(|device| binding.device.as_ref() == Some(device))
            && self.channel.as_ref().is_none_or(|channel| binding.channel.as_ref() == Some(channel));
        fits.then_some((connection, binding))
    }
}

/// Which part of a list is wanted.
#[derive(Debug)]
struct Window<C> {
    place: Place<C>,
    size: usize,
}

#[derive(Debug)]
enum Place<C> {
    /// From 1.
    Page(u64),
    /// Behind this.
    After(C),
}

impl<C> Window<C> {
    fn parse(query: &Query, cursor: impl Fn(&Query) -> Result<Option<C>, Problem>) -> Result<Self, Problem> {
        let size = query.number("size", 1..=MAX_SIZE)?.unwrap_or(DEFAULT_SIZE);
        let page = query.number("page", 1..=u64::from(u32::MAX))?;
        let place = match (page, cursor(query)?) {
            (Some(_), Some(_)) => return Err(fault("page", "either page or cursor", "both")),
            (page, None) => Place::Page(page.unwrap_or(1)),
            (None, Some(cursor)) => Place::After(cursor),
        };
        Ok(Self { place, size: usize::try_from(size).expect("at most MAX_SIZE") })
    }

    fn skipped(&self, page: u64) -> usize {
        usize::try_from(page - 1).unwrap_or(usize::MAX).saturating_mul(self.size)
    }

    fn page_of<'a, N, R>(&self, counts: &'a N, total: usize, next: Option<String>, items: Vec<R>) -> Page<'a, N, R> {
        let page = match self.place {
            Place::Page(page) => Some(page),
            Place::After(_) => None,
        };
        Page { page, size: self.size, pages: total.div_ceil(self.size), counts, cursor: next, items }
    }
}

fn parse_cid(query: &Query) -> Result<Option<u64>, Problem> {
    query.number("cursor", 0..=MAX_SAFE_INTEGER)
}

/// One page, as it goes out.
#[derive(Serialize)]
struct Page<'a, N, R> {
    #[serde(skip_serializing_if = "Option::is_none")]
    page: Option<u64>,
    size: usize,
    pages: usize,
    #[serde(flatten)]
    counts: &'a N,
    /// Behind which entry the next page begins; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    items: Vec<R>,
}

#[derive(Debug, Default, Serialize)]
struct Counts {
    users: usize,
    connections: usize,
}

#[derive(Serialize)]
struct RoomCounts {
    rooms: usize,
}

/// What a scan brought home.
#[derive(Default)]
struct Found {
    rows: Vec<Bound>,
    counts: Counts,
    more: bool,
}

impl Found {
    fn next(&self) -> Option<String> {
        self.rows.last().filter(|_| self.more).map(|(c, _)| c.id().to_string())
    }
}

/// Where a walk over connections stands.
struct Walk {
    /// What the filter names directly; `None` = the whole node.
    named: Option<Vec<Connection>>,
    after: u64,
    ended: bool,
}

/// The first connection of each user met, looked up once: a user may have thousands.
#[derive(Default)]
struct Firsts(AHashMap<Uid, Option<ConnectionId>>);

impl Firsts {
    fn of(&mut self, uid: &Uid, all: impl FnOnce() -> Vec<Bound>) -> Option<ConnectionId> {
        if let Some(first) = self.0.get(uid) {
            return *first;
        }
        let first = all().first().map(|(c, _)| c.id());
        self.0.insert(uid.clone(), first);
        first
    }
}

const PAGE_PARAMETERS: &[&str] = &["page", "size", "cursor"];
const LIST_PARAMETERS: &[&str] = &["page", "size", "cursor", "uid", "room", "device", "channel"];
const DEFAULT_SIZE: u64 = 100;
const MAX_SIZE: u64 = 1000;
/// Connections looked at between two yields.
const CHUNK: usize = 1000;

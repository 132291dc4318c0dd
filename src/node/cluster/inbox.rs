//! Handles cluster messages of other nodes: sorts them and answers requests, within size limits.
//!
//! [`Requests`] sends the requests of this node.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::mpsc;

use super::change::Changes;
use super::codec::{self, IncomingMessage, Unreadable};
use super::requests::Requests;
use crate::broker::Address;
use crate::id::{NodeId, Uid};
use crate::node::devices::Devices;
use crate::node::query::{Local, SeenConnection, Unit};
use crate::protocol::cluster::{self as wire, cluster_message::Kind, cluster_reply::Reply, cluster_request::Request};
use crate::telemetry::names;

/// Maximum number of queued messages. Further ones are dropped, and the requesting node counts this node as missing.
const MAX_QUEUED: usize = 1024;
/// Maximum bytes of rows or names in one reply. The rest is requested again. The smallest record limit of an engine is
/// 1 MB.
const MAX_REPLY_BYTES: usize = 256 << 10;
/// Maximum number of rows in one reply.
const MAX_ROWS: usize = 1000;

/// Receives the cluster messages of other nodes, and answers their requests.
pub(super) struct Inbox {
    me: NodeId,
    local: Local,
    devices: Arc<Devices>,
    changes: Arc<Changes>,
    requests: Arc<Requests>,
    queue: mpsc::Sender<(NodeId, IncomingMessage)>,
    receiver: Mutex<Option<mpsc::Receiver<(NodeId, IncomingMessage)>>>,
}

impl Inbox {
    pub(super) fn new(me: NodeId, devices: Arc<Devices>, changes: Arc<Changes>) -> Self {
        let (queue, receiver) = mpsc::channel(MAX_QUEUED);
        let (local, requests) = (changes.local.clone(), Arc::clone(&changes.requests));
        Self { me, local, devices, changes, requests, queue, receiver: Mutex::new(Some(receiver)) }
    }

    /// The queue of messages to act on. `None` after the first call.
    pub(super) fn take_receiver(&self) -> Option<mpsc::Receiver<(NodeId, IncomingMessage)>> {
        self.receiver.lock().take()
    }

    /// Receives a cluster message from the bus. Returns at once; [`Inbox::handle`] does the slow work.
    pub(super) fn receive(&self, from: &NodeId, bytes: &Bytes) {
        let message = match codec::decode(bytes) {
            Ok(Kind::Reply(reply)) => return self.requests.on_reply(from, reply),
            // This node's own request or announcement, which it has already handled.
            Ok(Kind::Request(request)) if *from == self.me => {
                return self.requests.on_own_request(request.number, from);
            }
            Ok(Kind::Bind(_)) if *from == self.me => return,
            Ok(Kind::Request(request)) => IncomingMessage::Request(request),
            Ok(Kind::Bind(announcement)) => IncomingMessage::Bind(announcement),
            Err(why) => {
                metrics::counter!(names::WORDS_REFUSED, "why" => "unreadable").increment(1);
                return tracing::warn!(%from, %why, "cluster message cannot be decoded; dropped");
            }
        };
        if self.queue.try_send((from.clone(), message)).is_err() {
            metrics::counter!(names::WORDS_REFUSED, "why" => "full").increment(1);
            tracing::warn!(%from, "cluster message dropped: the queue is full");
        }
    }

    /// Handles the message: answers a request, or applies an announced bind.
    pub(super) async fn handle(&self, from: NodeId, message: IncomingMessage) {
        match message {
            IncomingMessage::Request(wire::ClusterRequest { number, request }) => {
                let reply = match request {
                    Some(request) => self.reply_to(request).await,
                    None => Err(Unreadable::Unknown("a request of an unknown kind")),
                };
                let reply = reply.unwrap_or_else(|why| Reply::Refused(why.to_string()));
                self.requests.send(Address::Node(from), codec::reply(number, reply)).await;
            }
            IncomingMessage::Bind(announcement) => self.devices.on_bind_announcement(&from, announcement).await,
        }
    }

    /// Boxed, because the sizes of the futures differ much and most are small.
    fn reply_to(&self, request: Request) -> BoxFuture<'_, Result<Reply, Unreadable>> {
        async move {
            Ok(match request {
                Request::Count(filter) => Reply::Counts(self.local.count(&codec::read_filter(filter)?).await.into()),
                Request::Page(page) => Reply::Rows(self.page_for(page).await?),
                Request::Users(users) => Reply::Users(self.users_for(users)?),
                Request::Names(names) => Reply::Names(self.names_for(&names)?),
                Request::Change(change) => {
                    let (change, hops) = codec::read_change(change)?;
                    Reply::Changed((&self.changes.change_here(&change, hops).await).into())
                }
                Request::Kick(kick) => {
                    let closed = self.changes.kick_here(&codec::read_target(kick.target)?, &kick.text).await;
                    Reply::Closed(u32::try_from(closed).unwrap_or(u32::MAX))
                }
                Request::Login(login) => {
                    let (cid, account, hops) = codec::read_login(login)?;
                    Reply::Done(self.changes.login_here(cid, account, hops).await)
                }
                Request::Connected(cid) => Reply::Done(self.local.connection(codec::cid(cid)?).is_some()),
            })
        }
        .boxed()
    }

    async fn page_for(&self, page: wire::Page) -> Result<wire::Rows, Unreadable> {
        let filter = codec::read_filter(page.filter.unwrap_or_default())?;
        let unit = if page.users { Unit::User } else { Unit::Connection };
        let skip = usize::try_from(page.skip).unwrap_or(usize::MAX);
        let page = self.local.page(&filter, unit, page.after, skip, (page.limit as usize).min(MAX_ROWS)).await;
        let (rows, cut) = fit_reply(page.rows.iter().map(|seen: &SeenConnection| seen.into()), wire::Row::encoded_len);
        Ok(wire::Rows { rows, more: page.more || cut })
    }

    fn users_for(&self, users: wire::Users) -> Result<wire::UserRows, Unreadable> {
        let filter = codec::read_filter(users.filter.unwrap_or_default())?;
        let uids = users.uids.iter().take(MAX_ROWS).map(|uid| Uid::parse(uid)).collect::<Result<Vec<_>, _>>()?;
        let seen: Vec<_> = uids.iter().filter_map(|uid| self.local.user(uid, &filter)).collect();
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for user in &seen {
            let mut row = wire::UserRow::from(user);
            // The count stays correct if rows are left out.
            if bytes > MAX_REPLY_BYTES {
                row.rows.truncate(1);
            }
            bytes += row.encoded_len();
            rows.push(row);
        }
        Ok(wire::UserRows { users: rows })
    }

    fn names_for(&self, asked: &wire::Names) -> Result<wire::NameList, Unreadable> {
        let limit = (asked.limit as usize).min(MAX_ROWS);
        let (part, total) = self.local.names(&codec::read_names(asked)?, &asked.after, limit);
        let name = |(name, connections): (String, usize)| wire::Name {
            name,
            connections: u32::try_from(connections).unwrap_or(u32::MAX),
        };
        let (names, cut) = fit_reply(part.rows.into_iter().map(name), wire::Name::encoded_len);
        Ok(wire::NameList { names, more: part.more || cut, total: total as u64 })
    }
}

/// Takes as many entries as fit into a reply, at least one. Returns true if some did not fit.
fn fit_reply<T>(all: impl Iterator<Item = T>, length: impl Fn(&T) -> usize) -> (Vec<T>, bool) {
    let (mut fitting, mut bytes) = (Vec::new(), 0);
    for one in all {
        bytes += length(&one);
        if bytes > MAX_REPLY_BYTES && !fitting.is_empty() {
            return (fitting, true);
        }
        fitting.push(one);
    }
    (fitting, false)
}

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

use super::ask::Requests;
use super::change::Changes;
use super::word::{self, Heard, Unreadable};
use crate::broker::Address;
use crate::id::{NodeId, Uid};
use crate::node::devices::Devices;
use crate::node::query::{Local, SeenConnection, Unit};
use crate::protocol::cluster::{self as wire, answer::Says as Reply, question, word::Says};
use crate::telemetry::names;

/// Maximum number of queued messages. Further ones are dropped, and the requesting node counts this node as missing.
const INBOX: usize = 1024;
/// Maximum bytes of rows or names in one reply. The rest is requested again. The smallest record limit of an engine is
/// 1 MB.
const MAX_ANSWER_BYTES: usize = 256 << 10;
/// Maximum number of rows in one reply.
const MAX_ROWS: usize = 1000;

/// Receives the cluster messages of other nodes, and answers their requests.
pub(super) struct Inbox {
    me: NodeId,
    local: Local,
    devices: Arc<Devices>,
    changes: Arc<Changes>,
    requests: Arc<Requests>,
    queue: mpsc::Sender<(NodeId, Heard)>,
    waiting: Mutex<Option<mpsc::Receiver<(NodeId, Heard)>>>,
}

impl Inbox {
    pub(super) fn new(me: NodeId, devices: Arc<Devices>, changes: Arc<Changes>) -> Self {
        let (queue, waiting) = mpsc::channel(INBOX);
        let (local, requests) = (changes.local.clone(), Arc::clone(&changes.requests));
        Self { me, local, devices, changes, requests, queue, waiting: Mutex::new(Some(waiting)) }
    }

    /// The queue of messages to act on. `None` after the first call.
    pub(super) fn open(&self) -> Option<mpsc::Receiver<(NodeId, Heard)>> {
        self.waiting.lock().take()
    }

    /// Receives a cluster message from the bus. Returns at once; [`Inbox::act_on`] does the slow work.
    pub(super) fn receive(&self, from: &NodeId, bytes: &Bytes) {
        let heard = match word::read(bytes) {
            Ok(Says::Answer(answer)) => return self.requests.take(from, answer),
            // This node's own request or announcement, which it has already handled.
            Ok(Says::Question(question)) if *from == self.me => {
                return self.requests.heard_own(question.number, from);
            }
            Ok(Says::Contender(_)) if *from == self.me => return,
            Ok(Says::Question(question)) => Heard::Question(question),
            Ok(Says::Contender(contender)) => Heard::Contender(contender),
            Err(why) => {
                metrics::counter!(names::WORDS_REFUSED, "why" => "unreadable").increment(1);
                return tracing::warn!(%from, %why, "cluster message cannot be decoded; dropped");
            }
        };
        if self.queue.try_send((from.clone(), heard)).is_err() {
            metrics::counter!(names::WORDS_REFUSED, "why" => "full").increment(1);
            tracing::warn!(%from, "cluster message dropped: the queue is full");
        }
    }

    /// Acts on the message.
    pub(super) async fn act_on(&self, from: NodeId, heard: Heard) {
        match heard {
            Heard::Question(wire::Question { number, asks }) => {
                let reply = match asks {
                    Some(asks) => self.reply_to(asks).await,
                    None => Err(Unreadable::Unknown("a request of an unknown kind")),
                };
                let reply = reply.unwrap_or_else(|why| Reply::Refused(why.to_string()));
                self.requests.say(Address::Node(from), word::answer(number, reply)).await;
            }
            Heard::Contender(contender) => self.devices.meet(&from, contender).await,
        }
    }

    /// Boxed, because the sizes of the futures differ much and most are small.
    fn reply_to(&self, asks: question::Asks) -> BoxFuture<'_, Result<Reply, Unreadable>> {
        use question::Asks;
        async move {
            Ok(match asks {
                Asks::Count(filter) => Reply::Counts(self.local.count(&word::read_filter(filter)?).await.into()),
                Asks::Page(page) => Reply::Rows(self.page_for(page).await?),
                Asks::Users(users) => Reply::Crowd(self.crowd_for(users)?),
                Asks::Names(names) => Reply::Names(self.names_for(&names)?),
                Asks::Change(change) => {
                    let (change, hops) = word::read_change(change)?;
                    Reply::Changed((&self.changes.change_here(&change, hops).await).into())
                }
                Asks::Kick(kick) => {
                    let closed = self.changes.kick_here(&word::read_target(kick.target)?, &kick.words).await;
                    Reply::Closed(u32::try_from(closed).unwrap_or(u32::MAX))
                }
                Asks::Login(login) => {
                    let (cid, account, hops) = word::read_login(login)?;
                    Reply::Done(self.changes.login_here(cid, account, hops).await)
                }
                Asks::Connected(cid) => Reply::Done(self.local.connection(word::cid(cid)?).is_some()),
            })
        }
        .boxed()
    }

    async fn page_for(&self, page: wire::Page) -> Result<wire::Rows, Unreadable> {
        let filter = word::read_filter(page.filter.unwrap_or_default())?;
        let unit = if page.users { Unit::User } else { Unit::Connection };
        let skip = usize::try_from(page.skip).unwrap_or(usize::MAX);
        let part = self.local.page(&filter, unit, page.after, skip, (page.limit as usize).min(MAX_ROWS)).await;
        let (rows, cut) = within(part.rows.iter().map(|seen: &SeenConnection| seen.into()), wire::Row::encoded_len);
        Ok(wire::Rows { rows, more: part.more || cut })
    }

    fn crowd_for(&self, users: wire::Users) -> Result<wire::Crowd, Unreadable> {
        let filter = word::read_filter(users.filter.unwrap_or_default())?;
        let uids = users.uids.iter().take(MAX_ROWS).map(|uid| Uid::parse(uid)).collect::<Result<Vec<_>, _>>()?;
        let seen: Vec<_> = uids.iter().filter_map(|uid| self.local.user(uid, &filter)).collect();
        let (mut members, mut bytes) = (Vec::new(), 0);
        for user in &seen {
            let mut member = wire::Member::from(user);
            // The count stays correct if rows are left out.
            if bytes > MAX_ANSWER_BYTES {
                member.rows.truncate(1);
            }
            bytes += member.encoded_len();
            members.push(member);
        }
        Ok(wire::Crowd { members })
    }

    fn names_for(&self, asked: &wire::Names) -> Result<wire::NameList, Unreadable> {
        let limit = (asked.limit as usize).min(MAX_ROWS);
        let (part, total) = self.local.names(&word::read_names(asked)?, &asked.after, limit);
        let name = |(name, connections): (String, usize)| wire::Name {
            name,
            connections: u32::try_from(connections).unwrap_or(u32::MAX),
        };
        let (names, cut) = within(part.rows.into_iter().map(name), wire::Name::encoded_len);
        Ok(wire::NameList { names, more: part.more || cut, total: total as u64 })
    }
}

/// Takes as many entries as fit into a reply, at least one. Returns true if some did not fit.
fn within<T>(all: impl Iterator<Item = T>, length: impl Fn(&T) -> usize) -> (Vec<T>, bool) {
    let (mut fitting, mut bytes) = (Vec::new(), 0);
    for one in all {
        bytes += length(&one);
        if bytes > MAX_ANSWER_BYTES && !fitting.is_empty() {
            return (fitting, true);
        }
        fitting.push(one);
    }
    (fitting, false)
}

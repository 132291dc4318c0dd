//! Membership in Redis: leases by the server's clock, online users per incarnation of a node, and increasing numbers.
//!
//! Every step is one script, so no node sees a partial update. Reports that fail while the server is unreachable are
//! kept and sent with the next renewal. Independent of connections and channels.

mod member;
mod process;

use std::sync::Arc;
use std::time::Duration;

use ::redis::Script;
use ahash::{AHashMap, AHashSet};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::client::Client;
use super::names::Names;
use crate::broker::Unavailable;
use crate::broker::roster::{ExpiredMember, LeaseError, Member, Roster, count_lease_change};
use crate::id::{NodeId, Uid};

/// Time to live of a lease.
const LEASE: Duration = Duration::from_secs(10);
/// Time to live of a user's last number. The next number is greater even if the key has expired.
const NUMBER: Duration = Duration::from_secs(60);
/// Maximum number of users per script call.
const CHUNK: usize = 1_000;
/// Maximum time for user reports per renewal. The rest waits for the next one, because the lease must be renewed.
const TURN: Duration = Duration::from_secs(1);
/// Maximum age of the member list that a publish to named nodes uses.
const FRESH: Duration = Duration::from_secs(1);

/// Roster of one node.
pub struct RedisRoster {
    client: Arc<Client>,
    names: Names,
    /// Name of this process. A later process with the same node name can check that it has exited.
    process: String,
    scripts: Scripts,
    mine: Mutex<Mine>,
    known: Mutex<Option<(Instant, Arc<[NodeId]>)>>,
}

#[derive(Default)]
struct Mine {
    id: Option<NodeId>,
    /// 0 = no lease.
    incarnation: u64,
    /// Users online on this node.
    users: AHashSet<Uid>,
    /// Changes that Redis does not know yet; true = the user is online here.
    untold: AHashMap<Uid, bool>,
}

/// Answer to a join.
struct Entrance {
    incarnation: u64,
    /// Reason of the refusal. Empty if the lease is granted.
    why: String,
    /// Incarnation that holds the name, and its member record. Empty if the refusal has another reason.
    former: String,
    member: String,
}

impl Entrance {
    /// True if the process that holds the name has certainly exited, although its lease has not expired.
    fn has_ended(&self) -> bool {
        !self.former.is_empty() && process::has_ended(&member::process_of(&self.member))
    }
}

struct Scripts {
    join: Script,
    renew: Script,
    leave: Script,
    members: Script,
    presence: Script,
    expired: Script,
    number: Script,
}

impl RedisRoster {
    /// Creates the roster over `client`, with the prefix of `names`.
    pub(super) fn new(client: Arc<Client>, names: Names) -> Self {
        let scripts = Scripts {
            join: Script::new(include_str!("roster/scripts/join.lua")),
            renew: Script::new(include_str!("roster/scripts/renew.lua")),
            leave: Script::new(include_str!("roster/scripts/leave.lua")),
            members: Script::new(include_str!("roster/scripts/members.lua")),
            presence: Script::new(include_str!("roster/scripts/presence.lua")),
            expired: Script::new(include_str!("roster/scripts/expired.lua")),
            number: Script::new(include_str!("roster/scripts/number.lua")),
        };
        let process = process::own();
        Self { client, names, process, scripts, mine: Mutex::default(), known: Mutex::default() }
    }

    /// Ids of the living members, at most one second old.
    pub(super) async fn known(&self) -> Result<Arc<[NodeId]>, Unavailable> {
        if let Some((at, known)) = &*self.known.lock()
            && at.elapsed() < FRESH
        {
            return Ok(Arc::clone(known));
        }
        let known: Arc<[NodeId]> = self.read_members().await?.into_iter().map(|member| member.id).collect();
        *self.known.lock() = Some((Instant::now(), Arc::clone(&known)));
        Ok(known)
    }

    async fn take_lease(&self, me: &Member) -> Result<u64, LeaseError> {
        let mut entrance = self.enter(me, "").await?;
        if entrance.has_ended() {
            let incarnation = &entrance.former;
            tracing::info!(node = %me.id, incarnation, "earlier process of this node has exited; taking its lease");
            entrance = self.enter(me, &entrance.former).await?;
        }
        let Entrance { incarnation, why, .. } = entrance;
        if !why.is_empty() {
            return Err(LeaseError::Taken(why));
        }
        {
            let mut mine = self.mine.lock();
            mine.id = Some(me.id.clone());
            mine.incarnation = incarnation;
            let Mine { users, untold, .. } = &mut *mine;
            *untold = users.iter().map(|uid| (uid.clone(), true)).collect();
        }
        count_lease_change("taken");
        self.tell_untold().await;
        Ok(incarnation)
    }

    /// Takes the lease if no living node has the name or number. `ended` is an earlier incarnation of this name that
    /// has exited.
    async fn enter(&self, me: &Member, ended: &str) -> Result<Entrance, Unavailable> {
        let mut script = self.scripts.join.prepare_invoke();
        for key in ["members", "lives", "leases", "lapsed", "incarnation"] {
            script.key(self.names.roster(key));
        }
        script.arg(me.id.as_str()).arg(me.number).arg(member::written(me, &self.process)).arg(millis(LEASE)).arg(ended);
        let (incarnation, why, former, member) = self.client.invoke(&script).await?;
        Ok(Entrance { incarnation, why, former, member })
    }

    async fn keep_lease(&self, me: &Member) -> Result<(), LeaseError> {
        let incarnation = self.mine.lock().incarnation;
        let mut script = self.scripts.renew.prepare_invoke();
        for key in ["members", "lives", "leases"] {
            script.key(self.names.roster(key));
        }
        script.arg(me.id.as_str()).arg(incarnation).arg(member::written(me, &self.process)).arg(millis(LEASE));
        if self.client.invoke::<u8>(&script).await? == 0 {
            count_lease_change("lost");
            return Err(LeaseError::Lost(me.id.clone()));
        }
        self.tell_untold().await;
        Ok(())
    }

    async fn give_back(&self) {
        let (id, incarnation) = {
            let mut mine = self.mine.lock();
            let Some(id) = mine.id.take() else { return };
            mine.users.clear();
            mine.untold.clear();
            (id, std::mem::take(&mut mine.incarnation))
        };
        let mut script = self.scripts.leave.prepare_invoke();
        for key in ["members", "lives", "leases"] {
            script.key(self.names.roster(key));
        }
        script.key(self.users_of(incarnation)).arg(id.as_str()).arg(incarnation);
        match self.client.invoke::<u8>(&script).await {
            Ok(_) => count_lease_change("given_back"),
            Err(error) => tracing::warn!(%error, "lease was not released; it expires by itself"),
        }
    }

    async fn read_members(&self) -> Result<Vec<Member>, Unavailable> {
        let mut script = self.scripts.members.prepare_invoke();
        for key in ["members", "lives", "leases"] {
            script.key(self.names.roster(key));
        }
        let parts: Vec<String> = self.client.invoke(&script).await?;
        let read = |pair: &[String]| {
            let member = member::read(&pair[1]).zip(pair[0].parse().ok());
            if member.is_none() {
                tracing::warn!(member = pair[1], "member record cannot be decoded; member skipped");
            }
            member.map(|(member, incarnation)| Member { incarnation, ..member })
        };
        let mut members: Vec<Member> = parts.chunks_exact(2).filter_map(read).collect();
        members.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(members)
    }

    /// Reports one user as online or offline. Returns true if no other incarnation has it online.
    async fn change(&self, uid: &Uid, is_here: bool) -> Result<bool, Unavailable> {
        let is_told = {
            let mut mine = self.mine.lock();
            if is_here {
                mine.users.insert(uid.clone())
            } else {
                mine.users.remove(uid)
            };
            // Pending reports of the user are sent with the renewal, so that a new report cannot overtake them.
            let is_told = mine.incarnation != 0 && !mine.untold.contains_key(uid);
            if !is_told {
                mine.untold.insert(uid.clone(), is_here);
            }
            is_told
        };
        if !is_told {
            return Err(self.remembered("an earlier report is still pending"));
        }
        match self.tell(&[(uid.clone(), is_here)]).await {
            Ok(alone) => alone.first().copied().ok_or_else(|| self.remembered("the lease is lost")),
            Err(unavailable) => {
                let mut mine = self.mine.lock();
                // Stores the current state instead of the failed change, because the state may have changed again
                // meanwhile.
                let is_here = mine.users.contains(uid);
                mine.untold.insert(uid.clone(), is_here);
                Err(unavailable)
            }
        }
    }

    /// Reports changes. Returns for each user true if no other incarnation has it online. Empty if the lease is lost.
    async fn tell(&self, changes: &[(Uid, bool)]) -> Result<Vec<bool>, Unavailable> {
        let (id, incarnation) = {
            let mine = self.mine.lock();
            let Some(id) = mine.id.clone() else { return Ok(Vec::new()) };
            (id, mine.incarnation)
        };
        let mut script = self.scripts.presence.prepare_invoke();
        script.key(self.names.roster("lives")).key(self.names.roster("lapsed")).key(self.users_of(incarnation));
        script.arg(id.as_str()).arg(incarnation).arg(self.names.roster("users:"));
        for (uid, is_here) in changes {
            script.arg(format!("{}{uid}", if *is_here { '+' } else { '-' }));
        }
        let alone: Vec<u8> = self.client.invoke(&script).await?;
        Ok(alone.into_iter().map(|alone| alone == 1).collect())
    }

    /// Sends pending reports for at most [`TURN`]. Failed ones wait for the next renewal and do not affect the lease,
    /// which the server has already renewed.
    async fn tell_untold(&self) {
        let begun = Instant::now();
        while begun.elapsed() < TURN {
            let chunk: Vec<(Uid, bool)> =
                self.mine.lock().untold.iter().take(CHUNK).map(|(uid, is_here)| (uid.clone(), *is_here)).collect();
            if chunk.is_empty() {
                return;
            }
            match self.tell(&chunk).await {
                Ok(alone) if alone.is_empty() => return tracing::debug!("user reports deferred: the lease is lost"),
                Ok(_) => {}
                Err(error) => return tracing::debug!(%error, "user reports deferred"),
            }
            let mut mine = self.mine.lock();
            for (uid, told) in &chunk {
                // A user that changed meanwhile stays pending.
                if mine.untold.get(uid) == Some(told) {
                    mine.untold.remove(uid);
                }
            }
        }
    }

    async fn take_expired(&self) -> Result<Vec<ExpiredMember>, Unavailable> {
        let mut script = self.scripts.expired.prepare_invoke();
        for key in ["members", "lives", "leases", "lapsed"] {
            script.key(self.names.roster(key));
        }
        script.arg(self.names.roster("users:")).arg(CHUNK);
        let answer: Vec<String> = self.client.invoke(&script).await?;
        let [id, incarnation, is_last, users @ ..] = answer.as_slice() else { return Ok(Vec::new()) };
        let (Ok(id), Ok(incarnation)) = (id.parse(), incarnation.parse()) else { return Ok(Vec::new()) };
        if is_last == "1" {
            count_lease_change("fallen");
        }
        let users = users.iter().filter_map(|uid| uid.parse().ok()).collect();
        Ok(vec![ExpiredMember { id, incarnation, users }])
    }

    async fn next_number(&self, uid: &Uid) -> Result<u64, Unavailable> {
        let mut script = self.scripts.number.prepare_invoke();
        self.client.invoke(script.key(self.names.number(uid)).arg(millis(NUMBER))).await
    }

    fn users_of(&self, incarnation: u64) -> String {
        self.names.roster(&format!("users:{incarnation}"))
    }

    fn remembered(&self, why: &str) -> Unavailable {
        Unavailable { engine: "redis", why: format!("{}: {why}", self.client.address()) }
    }
}

impl Roster for RedisRoster {
    fn join(&self, me: &Member) -> BoxFuture<'_, Result<u64, LeaseError>> {
        let me = me.clone();
        async move { self.take_lease(&me).await }.boxed()
    }

    fn renew(&self, me: &Member) -> BoxFuture<'_, Result<(), LeaseError>> {
        let me = me.clone();
        async move { self.keep_lease(&me).await }.boxed()
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        self.give_back().boxed()
    }

    fn members(&self) -> BoxFuture<'_, Result<Vec<Member>, Unavailable>> {
        self.read_members().boxed()
    }

    fn next_number(&self, uid: &Uid) -> BoxFuture<'_, Result<u64, Unavailable>> {
        let uid = uid.clone();
        async move { self.next_number(&uid).await }.boxed()
    }

    fn online(&self, uid: &Uid) -> BoxFuture<'_, Result<bool, Unavailable>> {
        let uid = uid.clone();
        async move { self.change(&uid, true).await }.boxed()
    }

    fn offline(&self, uid: &Uid) -> BoxFuture<'_, Result<bool, Unavailable>> {
        let uid = uid.clone();
        async move { self.change(&uid, false).await }.boxed()
    }

    fn expired(&self) -> BoxFuture<'_, Result<Vec<ExpiredMember>, Unavailable>> {
        self.take_expired().boxed()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).expect("a lease in milliseconds fits 64 bits")
}

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
const REPORT_TIME: Duration = Duration::from_secs(1);
/// Maximum age of the member list that a publish to named nodes uses.
const FRESH: Duration = Duration::from_secs(1);

/// Roster of one node.
pub struct RedisRoster {
    client: Arc<Client>,
    names: Names,
    /// Name of this process. A later process with the same node name can check that it has exited.
    process: String,
    scripts: Scripts,
    local: Mutex<LocalState>,
    known: Mutex<Option<(Instant, Arc<[NodeId]>)>>,
}

#[derive(Default)]
struct LocalState {
    id: Option<NodeId>,
    /// 0 = no lease.
    incarnation: u64,
    /// Users online on this node.
    users: AHashSet<Uid>,
    /// Changes that Redis does not know yet; true = the user is online here.
    pending_reports: AHashMap<Uid, bool>,
}

/// Answer to a join.
struct JoinAnswer {
    incarnation: u64,
    /// Reason of the refusal. Empty if the lease is granted.
    why: String,
    /// Incarnation that holds the name, and its member record. Empty if the refusal has another reason.
    former: String,
    member: String,
}

impl JoinAnswer {
    /// True if the process that holds the name has certainly exited, although its lease has not expired.
    fn has_former_exited(&self) -> bool {
        !self.former.is_empty() && process::has_exited(&member::process_of(&self.member))
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
        let process = process::name_of_this_process();
        Self { client, names, process, scripts, local: Mutex::default(), known: Mutex::default() }
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

    async fn join_cluster(&self, me: &Member) -> Result<u64, LeaseError> {
        let mut answer = self.try_join(me, "").await?;
        if answer.has_former_exited() {
            let incarnation = &answer.former;
            tracing::info!(node = %me.id, incarnation, "earlier process of this node has exited; taking its lease");
            answer = self.try_join(me, &answer.former).await?;
        }
        let JoinAnswer { incarnation, why, .. } = answer;
        if !why.is_empty() {
            return Err(LeaseError::Taken(why));
        }
        {
            let mut local = self.local.lock();
            local.id = Some(me.id.clone());
            local.incarnation = incarnation;
            let LocalState { users, pending_reports, .. } = &mut *local;
            *pending_reports = users.iter().map(|uid| (uid.clone(), true)).collect();
        }
        count_lease_change("taken");
        self.send_pending_reports().await;
        Ok(incarnation)
    }

    /// Takes the lease if no living node has the name or number. `ended` is an earlier incarnation of this name that
    /// has exited.
    async fn try_join(&self, me: &Member, ended: &str) -> Result<JoinAnswer, Unavailable> {
        let mut script = self.scripts.join.prepare_invoke();
        for key in ["members", "lives", "leases", "lapsed", "incarnation"] {
            script.key(self.names.roster(key));
        }
        script.arg(me.id.as_str()).arg(me.number).arg(member::encode(me, &self.process)).arg(millis(LEASE)).arg(ended);
        let (incarnation, why, former, member) = self.client.invoke(&script).await?;
        Ok(JoinAnswer { incarnation, why, former, member })
    }

    async fn renew_lease(&self, me: &Member) -> Result<(), LeaseError> {
        let incarnation = self.local.lock().incarnation;
        let mut script = self.scripts.renew.prepare_invoke();
        for key in ["members", "lives", "leases"] {
            script.key(self.names.roster(key));
        }
        script.arg(me.id.as_str()).arg(incarnation).arg(member::encode(me, &self.process)).arg(millis(LEASE));
        if self.client.invoke::<u8>(&script).await? == 0 {
            count_lease_change("lost");
            return Err(LeaseError::Lost(me.id.clone()));
        }
        self.send_pending_reports().await;
        Ok(())
    }

    async fn release_lease(&self) {
        let (id, incarnation) = {
            let mut local = self.local.lock();
            let Some(id) = local.id.take() else { return };
            local.users.clear();
            local.pending_reports.clear();
            (id, std::mem::take(&mut local.incarnation))
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
            let member = member::decode(&pair[1]).zip(pair[0].parse().ok());
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
    async fn change(&self, uid: &Uid, is_online: bool) -> Result<bool, Unavailable> {
        let is_reported = {
            let mut local = self.local.lock();
            if is_online {
                local.users.insert(uid.clone())
            } else {
                local.users.remove(uid)
            };
            // Pending reports of the user are sent with the renewal, so that a new report cannot overtake them.
            let is_reported = local.incarnation != 0 && !local.pending_reports.contains_key(uid);
            if !is_reported {
                local.pending_reports.insert(uid.clone(), is_online);
            }
            is_reported
        };
        if !is_reported {
            return Err(self.unavailable("an earlier report is still pending"));
        }
        match self.report_users(&[(uid.clone(), is_online)]).await {
            Ok(is_only) => is_only.first().copied().ok_or_else(|| self.unavailable("the lease is lost")),
            Err(unavailable) => {
                let mut local = self.local.lock();
                // Stores the current state instead of the failed change, because the state may have changed again
                // meanwhile.
                let is_online = local.users.contains(uid);
                local.pending_reports.insert(uid.clone(), is_online);
                Err(unavailable)
            }
        }
    }

    /// Reports changes. Returns for each user true if no other incarnation has it online. Empty if the lease is lost.
    async fn report_users(&self, changes: &[(Uid, bool)]) -> Result<Vec<bool>, Unavailable> {
        let (id, incarnation) = {
            let local = self.local.lock();
            let Some(id) = local.id.clone() else { return Ok(Vec::new()) };
            (id, local.incarnation)
        };
        let mut script = self.scripts.presence.prepare_invoke();
        script.key(self.names.roster("lives")).key(self.names.roster("lapsed")).key(self.users_of(incarnation));
        script.arg(id.as_str()).arg(incarnation).arg(self.names.roster("users:"));
        for (uid, is_online) in changes {
            script.arg(format!("{}{uid}", if *is_online { '+' } else { '-' }));
        }
        let is_only: Vec<u8> = self.client.invoke(&script).await?;
        Ok(is_only.into_iter().map(|is_only| is_only == 1).collect())
    }

    /// Sends pending reports for at most [`REPORT_TIME`]. Failed ones wait for the next renewal and do not affect the
    /// lease, which the server has already renewed.
    async fn send_pending_reports(&self) {
        let begun = Instant::now();
        while begun.elapsed() < REPORT_TIME {
            let chunk: Vec<(Uid, bool)> = self
                .local
                .lock()
                .pending_reports
                .iter()
                .take(CHUNK)
                .map(|(uid, is_online)| (uid.clone(), *is_online))
                .collect();
            if chunk.is_empty() {
                return;
            }
            match self.report_users(&chunk).await {
                Ok(is_only) if is_only.is_empty() => {
                    return tracing::debug!("user reports deferred: the lease is lost");
                }
                Ok(_) => {}
                Err(error) => return tracing::debug!(%error, "user reports deferred"),
            }
            let mut local = self.local.lock();
            for (uid, reported) in &chunk {
                // A user that changed meanwhile stays pending.
                if local.pending_reports.get(uid) == Some(reported) {
                    local.pending_reports.remove(uid);
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

    fn unavailable(&self, why: &str) -> Unavailable {
        Unavailable { engine: "redis", why: format!("{}: {why}", self.client.address()) }
    }
}

impl Roster for RedisRoster {
    fn join(&self, me: &Member) -> BoxFuture<'_, Result<u64, LeaseError>> {
        let me = me.clone();
        async move { self.join_cluster(&me).await }.boxed()
    }

    fn renew(&self, me: &Member) -> BoxFuture<'_, Result<(), LeaseError>> {
        let me = me.clone();
        async move { self.renew_lease(&me).await }.boxed()
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        self.release_lease().boxed()
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

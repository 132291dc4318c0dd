//! Binding a connection to its user: open, `client_bind`, `client_refresh`.
//!
//! Client input never changes the user. The auth plugins set it once, and a plugin that may log in others can change
//! it.

use super::resume::{self, CID, RESUME, Resume};
use super::{Action, BoundUser, ClientLocation, Pending, Session, bounded, deny, invalid, optional, required, user};
use crate::claim::{Admission, Claim, Facts, Refusal};
use crate::code::Code;
use crate::disconnect::Disconnect;
use crate::id::{Device, Uid};
use crate::message::Entries;
use crate::protocol::Reply;

/// Facts kept from `client_bind`, besides device and channel.
const FACTS: [&str; 5] = ["deviceName", "appVersion", "osVersion", "packageName", "language"];

/// Purpose of the running admission or bind.
#[derive(Debug)]
pub(super) enum Purpose {
    /// The first bind: the connection gets its user.
    Bind(BindData),
    /// A `client_bind` of a bound connection adds facts.
    Rebind(BindData),
    /// `client_refresh`.
    Refresh,
}

/// Data of a bind request.
#[derive(Debug, Default)]
pub(super) struct BindData {
    facts: Facts,
    /// Streams to resume whose kind this node does not know.
    unknown: Vec<String>,
}

impl Purpose {
    fn key(&self) -> &'static str {
        match self {
            Self::Bind(_) | Self::Rebind(_) => "client_bind",
            Self::Refresh => "client_refresh",
        }
    }
}

impl Session {
    pub(super) fn opened(&mut self, claim: Option<Box<Claim>>, now: i64) -> Vec<Action> {
        let Some(mut claim) = claim.filter(|c| c.token.is_some()) else { return Vec::new() };
        let resume = Resume::read(&claim.data, resume::MAX_QUERY_BYTES);
        let resume = match resume.and_then(|resume| self.count_replays(resume.as_ref(), now).map(|()| resume)) {
            Ok(resume) => resume,
            // The client stays connected and may bind with a frame.
            Err(refusal) => return vec![deny("client_bind", refusal, now)],
        };
        claim.data = for_plugins(&claim.data, &[]);
        let facts = Facts { device: claim.device.clone(), channel: claim.channel.clone(), ..Facts::default() };
        self.pending = Pending::Auth(Box::new(Purpose::Bind(BindData::new(facts, resume))));
        vec![Action::Admit(claim)]
    }

    pub(super) fn client_bind(
        &mut self,
        data: &Entries,
        bound_user: Option<BoundUser<'_>>,
        now: i64,
    ) -> Result<Vec<Action>, Refusal> {
        let facts = facts_of(data)?;
        let claim = claim_of(data, &facts);
        let resume = Resume::read(data, resume::MAX_BYTES)?;
        self.count_replays(resume.as_ref(), now)?;
        let mut bind = BindData::new(facts, resume);
        let Some(bound_user) = bound_user else {
            self.pending = Pending::Auth(Box::new(Purpose::Bind(bind)));
            return Ok(vec![Action::Admit(claim)]);
        };
        if claim.token.is_some() {
            self.pending = Pending::Auth(Box::new(Purpose::Rebind(bind)));
            return Ok(vec![Action::Admit(claim)]);
        }
        let facts = bind.take_facts();
        self.pending = Pending::Bind(Box::new((Purpose::Rebind(bind), bound_user.uid.clone(), bound_user.expires)));
        Ok(vec![Action::Rebind(facts)])
    }

    fn count_replays(&mut self, resume: Option<&Resume>, now: i64) -> Result<(), Refusal> {
        self.replays.take(resume.map_or(0, |resume| resume.request.streams.len()), now)
    }

    pub(super) fn client_refresh(
        &mut self,
        data: &Entries,
        bound_user: Option<BoundUser<'_>>,
    ) -> Result<Vec<Action>, Refusal> {
        user(bound_user)?;
        let token = required(data, "token")?.to_owned();
        self.pending = Pending::Auth(Box::new(Purpose::Refresh));
        Ok(vec![Action::Admit(Box::new(Claim { token: Some(token), ..Claim::default() }))])
    }

    pub(super) fn admitted(
        &mut self,
        answer: Result<Box<Admission>, Refusal>,
        mut purpose: Purpose,
        bound_user: Option<BoundUser<'_>>,
        now: i64,
    ) -> Vec<Action> {
        let mut admission = match (answer, &purpose) {
            (Ok(admission), _) => admission,
            (Err(refusal), Purpose::Bind(_)) => return self.refuse(Disconnect::UNAUTHORIZED, refusal, now),
            (Err(refusal), _) => return vec![deny(purpose.key(), refusal, now)],
        };
        if let Some(bound_user) = bound_user
            && !matches!(purpose, Purpose::Bind(_))
            && *bound_user.uid != admission.uid
        {
            let words = format!("token: expected a token of user {}, got one of another user", bound_user.uid);
            return vec![deny(purpose.key(), Refusal::new(Code::FORBIDDEN, words), now)];
        }
        let facts = match &mut purpose {
            Purpose::Bind(bind) | Purpose::Rebind(bind) => bind.take_facts(),
            Purpose::Refresh => {
                // A refresh proves the user again and nothing else. It does not rejoin rooms that the client left.
                admission.rooms = Vec::new();
                Facts::default()
            }
        };
        vec![self.bind(admission, purpose, facts)]
    }

    fn bind(&mut self, admission: Box<Admission>, purpose: Purpose, facts: Facts) -> Action {
        self.pending = Pending::Bind(Box::new((purpose, admission.uid.clone(), admission.expires)));
        Action::Bind(admission, facts)
    }

    pub(super) fn bound(
        &mut self,
        answer: Result<ClientLocation, Refusal>,
        (purpose, uid, expires): (Purpose, Uid, Option<u64>),
        now: i64,
    ) -> Vec<Action> {
        let mut location = match (answer, &purpose) {
            (Ok(location), _) => location,
            (Err(refusal), Purpose::Bind(_)) => return self.refuse(Disconnect::UNAUTHORIZED, refusal, now),
            (Err(refusal), _) => return vec![deny(purpose.key(), refusal, now)],
        };
        if let Purpose::Bind(bind) | Purpose::Rebind(bind) = &purpose {
            location.resume = resume::with_unknown(location.resume, &bind.unknown);
        }
        vec![Action::Reply(reply_to(purpose.key(), &uid, expires, &location, now))]
    }
}

impl BindData {
    fn new(mut facts: Facts, resume: Option<Resume>) -> Self {
        let Some(Resume { request, unknown }) = resume else { return Self { facts, unknown: Vec::new() } };
        facts.resume = Some(request);
        Self { facts, unknown }
    }

    fn take_facts(&mut self) -> Facts {
        std::mem::take(&mut self.facts)
    }
}

pub(super) fn reply_to(key: &str, uid: &Uid, expires: Option<u64>, location: &ClientLocation, now: i64) -> Reply {
    let mut data = Entries::new();
    data.insert("uid", uid.as_str());
    if let Some(expires) = expires {
        data.insert("expires", expires.to_string());
    }
    data.insert("cid", location.cid.to_string());
    data.insert("sid", location.node.as_str());
    if !location.address.is_empty() {
        data.insert("address", location.address.as_str());
    }
    if let Some(next) = &location.next {
        data.insert("next", next.as_str());
    }
    if let Some(resume) = &location.resume {
        data.insert(RESUME, resume.as_str());
    }
    Reply { key: key.to_owned(), code: Code::OK.to_string(), message: String::new(), timestamp: now, data }
}

fn facts_of(data: &Entries) -> Result<Facts, Refusal> {
    let device = optional(data, "deviceId");
    if let Some(device) = device {
        Device::parse(device).map_err(|e| invalid(format!("deviceId: {e}")))?;
    }
    let channel = optional(data, "channel");
    bounded("channel", channel.unwrap_or_default())?;
    let mut rest = Entries::new();
    for name in FACTS {
        if let Some(fact) = optional(data, name) {
            bounded(name, fact)?;
            rest.insert(name, fact);
        }
    }
    Ok(Facts { device: device.map(str::to_owned), channel: channel.map(str::to_owned), rest, resume: None })
}

fn claim_of(data: &Entries, facts: &Facts) -> Box<Claim> {
    Box::new(Claim {
        token: optional(data, "token").map(str::to_owned),
        uid: optional(data, "uid").map(str::to_owned),
        device: facts.device.clone(),
        channel: facts.channel.clone(),
        data: for_plugins(data, &["token", "uid", "deviceId", "channel"]),
    })
}

/// The fields of a bind request for the auth plugins, without those that the claim names.
fn for_plugins(data: &Entries, named: &[&str]) -> Entries {
    data.iter().filter(|(key, _)| !named.contains(key) && ![RESUME, CID].contains(key)).collect()
}

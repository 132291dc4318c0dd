//! Binding a connection to its user: open, `client_bind`, `client_refresh`.
//!
//! Client input never changes the user. The auth plugins set it once, and a plugin that may log in others can change
//! it.

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
    Bind(Facts),
    /// A `client_bind` of a bound connection adds facts.
    Rebind(Facts),
    /// `client_refresh`.
    Refresh,
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
    pub(super) fn opened(&mut self, claim: Option<Box<Claim>>) -> Vec<Action> {
        let Some(claim) = claim.filter(|c| c.token.is_some()) else { return Vec::new() };
        let facts = Facts { device: claim.device.clone(), channel: claim.channel.clone(), rest: Entries::new() };
        self.pending = Pending::Auth(Box::new(Purpose::Bind(facts)));
        vec![Action::Admit(claim)]
    }

    pub(super) fn client_bind(
        &mut self,
        data: &Entries,
        bound_user: Option<BoundUser<'_>>,
    ) -> Result<Vec<Action>, Refusal> {
        let facts = facts_of(data)?;
        let claim = claim_of(data, &facts);
        let Some(bound_user) = bound_user else {
            self.pending = Pending::Auth(Box::new(Purpose::Bind(facts)));
            return Ok(vec![Action::Admit(claim)]);
        };
        if claim.token.is_some() {
            self.pending = Pending::Auth(Box::new(Purpose::Rebind(facts)));
            return Ok(vec![Action::Admit(claim)]);
        }
        let purpose = Purpose::Rebind(Facts::default());
        self.pending = Pending::Bind(Box::new((purpose, bound_user.uid.clone(), bound_user.expires)));
        Ok(vec![Action::Rebind(facts)])
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
        purpose: Purpose,
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
        let (purpose, facts) = match purpose {
            Purpose::Bind(facts) => (Purpose::Bind(Facts::default()), facts),
            Purpose::Rebind(facts) => (Purpose::Rebind(Facts::default()), facts),
            Purpose::Refresh => {
                // A refresh proves the user again and nothing else. It does not rejoin rooms that the client left.
                admission.rooms = Vec::new();
                (Purpose::Refresh, Facts::default())
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
        let location = match (answer, &purpose) {
            (Ok(location), _) => location,
            (Err(refusal), Purpose::Bind(_)) => return self.refuse(Disconnect::UNAUTHORIZED, refusal, now),
            (Err(refusal), _) => return vec![deny(purpose.key(), refusal, now)],
        };
        vec![Action::Reply(reply_to(purpose.key(), &uid, expires, &location, now))]
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
    Ok(Facts { device: device.map(str::to_owned), channel: channel.map(str::to_owned), rest })
}

fn claim_of(data: &Entries, facts: &Facts) -> Box<Claim> {
    let named = ["token", "uid", "deviceId", "channel"];
    Box::new(Claim {
        token: optional(data, "token").map(str::to_owned),
        uid: optional(data, "uid").map(str::to_owned),
        device: facts.device.clone(),
        channel: facts.channel.clone(),
        data: data.iter().filter(|(key, _)| !named.contains(key)).collect(),
    })
}

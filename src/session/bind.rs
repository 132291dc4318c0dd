//! How a connection gets its user, keeps it, and proves it anew: open, `client_bind`, `client_refresh`.
//!
//! What a client types never changes the user: only the auth plugins' word does, once.

use super::{
    Action, Credentials, Denied, Facts, Grant, Session, Waiting, Whereabouts, bounded, deny, invalid, optional, reply,
    required,
};
use crate::disconnect::Disconnect;
use crate::id::Device;
use crate::message::Entries;

/// What is kept of what a client says of itself at `client_bind`, besides device and channel.
const FACTS: [&str; 5] = ["deviceName", "appVersion", "osVersion", "packageName", "language"];

/// Why the auth plugins are asked, or a bind is under way.
#[derive(Debug)]
pub(super) enum Purpose {
    /// The connection gets its user.
    First(Facts),
    /// A `client_bind` of a bound connection adds what it says.
    Again(Facts),
    /// `client_refresh`.
    Refresh,
}

impl Purpose {
    fn key(&self) -> &'static str {
        match self {
            Self::First(_) | Self::Again(_) => "client_bind",
            Self::Refresh => "client_refresh",
        }
    }
}

impl Session {
    pub(super) fn opened(&mut self, credentials: Option<Box<Credentials>>) -> Vec<Action> {
        let Some(credentials) = credentials.filter(|c| c.token.is_some()) else { return Vec::new() };
        let facts =
            Facts { device: credentials.device.clone(), channel: credentials.channel.clone(), rest: Entries::new() };
        self.waiting = Waiting::Auth(Box::new(Purpose::First(facts)));
        vec![Action::Admit(credentials)]
    }

    pub(super) fn client_bind(&mut self, data: &Entries) -> Result<Vec<Action>, Denied> {
        let facts = facts(data)?;
        let credentials = credentials(data, &facts);
        let Some(holder) = &self.holder else {
            self.waiting = Waiting::Auth(Box::new(Purpose::First(facts)));
            return Ok(vec![Action::Admit(credentials)]);
        };
        if credentials.token.is_some() {
            self.waiting = Waiting::Auth(Box::new(Purpose::Again(facts)));
            return Ok(vec![Action::Admit(credentials)]);
        }
        let same = holder.clone();
        Ok(vec![self.bind(same, Purpose::Again(Facts::default()), facts)])
    }

    pub(super) fn client_refresh(&mut self, data: &Entries) -> Result<Vec<Action>, Denied> {
        self.user()?;
        let token = required(data, "token")?.to_owned();
        self.waiting = Waiting::Auth(Box::new(Purpose::Refresh));
        Ok(vec![Action::Admit(Box::new(Credentials { token: Some(token), ..Credentials::default() }))])
    }

    pub(super) fn admitted(&mut self, answer: Result<Box<Grant>, Denied>, purpose: Purpose, now: i64) -> Vec<Action> {
        let mut grant = match (answer, &purpose) {
            (Ok(grant), _) => grant,
            (Err(denied), Purpose::First(_)) => return self.refuse(Disconnect::UNAUTHORIZED, denied, now),
            (Err(denied), _) => return vec![deny(purpose.key(), denied, now)],
        };
        if let Some(holder) = &self.holder {
            if holder.uid != grant.uid {
                let words = format!("token: expected one of user {}, got another user's", holder.uid);
                return vec![deny(purpose.key(), Denied::new("403", words), now)];
            }
            grant.device = grant.device.or_else(|| holder.device.clone());
        }
        let (purpose, facts) = match purpose {
            Purpose::First(facts) => (Purpose::First(Facts::default()), facts),
            Purpose::Again(facts) => (Purpose::Again(Facts::default()), facts),
            Purpose::Refresh => {
                // It proves the user anew and no more: a room that the client left stays left.
                grant.rooms = Vec::new();
                (Purpose::Refresh, Facts::default())
            }
        };
        vec![self.bind(grant, purpose, facts)]
    }

    fn bind(&mut self, grant: Box<Grant>, purpose: Purpose, facts: Facts) -> Action {
        // Rooms and claims live with the connection; the session keeps what a later bind must not lose.
        let kept = Grant {
            uid: grant.uid.clone(),
            device: grant.device.clone(),
            rooms: Vec::new(),
            expires: grant.expires,
            claims: Entries::new(),
        };
        self.waiting = Waiting::Bind(Box::new((purpose, kept)));
        Action::Bind(grant, facts)
    }

    pub(super) fn bound(
        &mut self,
        answer: Result<Whereabouts, Denied>,
        (purpose, grant): (Purpose, Grant),
        now: i64,
    ) -> Vec<Action> {
        let place = match (answer, &purpose) {
            (Ok(place), _) => place,
            (Err(denied), Purpose::First(_)) => return self.refuse(Disconnect::UNAUTHORIZED, denied, now),
            (Err(denied), _) => return vec![deny(purpose.key(), denied, now)],
        };
        let mut data = Entries::new();
        data.insert("uid", grant.uid.as_str());
        if let Some(expires) = grant.expires {
            data.insert("expires", expires.to_string());
        }
        self.holder = Some(Box::new(grant));
        data.insert("cid", place.cid.to_string());
        data.insert("sid", place.node.as_str());
        data.insert("address", place.address);
        vec![reply(purpose.key(), "200", String::new(), data, now)]
    }
}

fn facts(data: &Entries) -> Result<Facts, Denied> {
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

fn credentials(data: &Entries, facts: &Facts) -> Box<Credentials> {
    let named = ["token", "uid", "deviceId", "channel"];
    Box::new(Credentials {
        token: optional(data, "token").map(str::to_owned),
        uid: optional(data, "uid").map(str::to_owned),
        device: facts.device.clone(),
        channel: facts.channel.clone(),
        data: data.iter().filter(|(key, _)| !named.contains(key)).collect(),
    })
}

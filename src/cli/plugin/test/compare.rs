//! Compares expected and actual results: a readable list of differences with their places.

use std::time::Duration;

use super::cases::{Expect, HttpOut, LineOut, LoginOut, MessageOut, PushOut, ReplyOut};
use super::run::{StepOutcome, target};
use super::words::{Pairs, Text};
use crate::id::{ConnectionId, Device, Room, Uid};
use crate::message::{Entries, Message, Publication, Target};
use crate::plugin::harness::{CallFailure, SentRequest};
use crate::plugin::{Account, Admission, Answer, Effect};

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    /// Place, e.g. `message.content.text`.
    pub(super) at: String,
    pub(super) expected: String,
    pub(super) got: String,
}

/// Collects differences.
#[derive(Default)]
pub(super) struct Differences {
    pub(super) found: Vec<Difference>,
}

const NOTHING: &str = "nothing";

/// A field of a message: name, expectation, accessor.
type Field<'a, E, T> = (&'a str, &'a Option<E>, fn(&Message) -> &T);

impl Differences {
    /// Compares everything of a step except the stored keys.
    pub(super) fn of(expect: &Expect, outcome: &StepOutcome) -> Self {
        let mut all = Self::default();
        all.failure(expect.fails.as_deref(), outcome.failed.as_ref());
        if let Some(verdict) = expect.verdict {
            let got = outcome.verdict.map_or_else(|| NOTHING.to_owned(), |verdict| word(&verdict));
            all.differ("verdict", outcome.verdict == Some(verdict), word(&verdict), got);
        }
        let refusal = outcome.refusal.as_ref();
        all.text("code", expect.code.as_ref(), refusal.map(|refusal| refusal.code.as_str()));
        all.text("reason", expect.reason.as_ref(), refusal.map(|refusal| refusal.reason.as_str()));
        if let Some(message) = &expect.message {
            all.replaced(message, outcome);
        }
        all.admission(expect, outcome.admission.as_ref());
        all.number("until", expect.until, outcome.until);
        if let Some(reply) = &expect.reply {
            all.reply(reply, outcome.reply.as_ref());
        }
        if let Some(pushes) = &expect.pushes {
            all.effects(pushes, &outcome.effects);
        }
        if let Some(log) = &expect.log {
            all.log(log, outcome);
        }
        if let Some(rang) = &expect.rang {
            let same = rang.len() == outcome.rang.len()
                && rang.iter().zip(&outcome.rang).all(|(name, got)| name.matches(got.as_bytes()));
            all.differ("rang", same, list(rang.iter().map(ToString::to_string)), format!("{:?}", outcome.rang));
        }
        if let Some(http) = &expect.http {
            all.requests(http, &outcome.requests);
        }
        all
    }

    fn differ(&mut self, at: &str, same: bool, expected: impl Into<String>, got: impl Into<String>) {
        if !same {
            self.found.push(Difference { at: at.to_owned(), expected: expected.into(), got: got.into() });
        }
    }

    fn text(&mut self, at: &str, expected: Option<&Text>, got: Option<&str>) {
        self.bytes(at, expected, got.map(str::as_bytes));
    }

    /// Compares a value that may be absent.
    pub(super) fn bytes(&mut self, at: &str, expected: Option<&Text>, got: Option<&[u8]>) {
        let Some(expected) = expected else { return };
        let same = got.is_some_and(|got| expected.matches(got));
        self.differ(at, same, expected.to_string(), got.map_or_else(|| NOTHING.to_owned(), shown));
    }

    /// Reports a key that must not exist.
    pub(super) fn absent(&mut self, at: &str, got: Option<&[u8]>) {
        self.differ(at, got.is_none(), NOTHING, got.map(shown).unwrap_or_default());
    }

    fn number<T: PartialEq + ToString>(&mut self, at: &str, expected: Option<T>, got: Option<T>) {
        let Some(expected) = expected else { return };
        let same = got.as_ref() == Some(&expected);
        self.differ(at, same, expected.to_string(), got.map_or_else(|| NOTHING.to_owned(), |got| got.to_string()));
    }

    fn failure(&mut self, expected: Option<&str>, got: Option<&CallFailure>) {
        match (expected, got) {
            (None, None) => {}
            (None, Some(failed)) => self.differ("the call", false, "an answer", format!("a failure, {failed}")),
            (Some(words), None) => self.differ("fails", false, format!("{words:?}"), "an answer"),
            (Some(words), Some(failed)) => {
                self.differ(
                    "fails",
                    failed.to_string().contains(words),
                    format!("a failure with {words:?}"),
                    failed.to_string(),
                );
            }
        }
    }

    /// Fields of a replaced message that are not listed must be unchanged.
    fn replaced(&mut self, expected: &MessageOut, outcome: &StepOutcome) {
        let (Some(before), Some(after)) = (&outcome.before, &outcome.after) else {
            return self.differ("message", false, "a publish that is judged", NOTHING);
        };
        self.message("message", expected, after, Some(before));
    }

    fn message(&mut self, at: &str, expected: &MessageOut, got: &Message, before: Option<&Message>) {
        self.number(&format!("{at}.id"), expected.id.or(before.map(|before| before.id)), Some(got.id));
        let timestamp = expected.timestamp.or(before.map(|before| before.timestamp));
        self.number(&format!("{at}.timestamp"), timestamp, Some(got.timestamp));
        let texts: [Field<'_, Text, String>; 6] = [
            ("action", &expected.action, |m| &m.action),
            ("sender", &expected.sender, |m| &m.sender),
            ("receiver", &expected.receiver, |m| &m.receiver),
            ("title", &expected.title, |m| &m.title),
            ("image", &expected.image, |m| &m.image),
            ("format", &expected.format, |m| &m.format),
        ];
        for (name, expected, field) in texts {
            let unchanged = before.map(|before| Text::Exact(field(before).clone()));
            self.text(&format!("{at}.{name}"), expected.as_ref().or(unchanged.as_ref()), Some(field(got)));
        }
        let maps: [Field<'_, Pairs<Text>, Entries>; 2] =
            [("content", &expected.content, |m| &m.content), ("extra", &expected.extra, |m| &m.extra)];
        for (name, expected, field) in maps {
            let unchanged = before.map(|before| exactly(field(before)));
            if let Some(expected) = expected.as_ref().or(unchanged.as_ref()) {
                self.entries(&format!("{at}.{name}"), expected, field(got));
            }
        }
    }

    /// Compares the whole map, including missing and extra keys.
    fn entries(&mut self, at: &str, expected: &Pairs<Text>, got: &Entries) {
        for (key, text) in &expected.0 {
            self.text(&format!("{at}.{key}"), Some(text), got.get(key));
        }
        for (key, value) in got.iter().filter(|(key, _)| !expected.0.iter().any(|(other, _)| other == key)) {
            self.absent(&format!("{at}.{key}"), Some(value.as_bytes()));
        }
    }

    fn admission(&mut self, expect: &Expect, got: Option<&Admission>) {
        self.text("uid", expect.uid.as_ref(), got.map(|got| got.uid.as_str()));
        let device = got.and_then(|got| got.device.as_ref()).map(Device::as_str);
        self.text("device", expect.device.as_ref(), device);
        self.number("expires", expect.expires, got.and_then(|got| got.expires));
        if let Some(rooms) = &expect.rooms {
            let got: Vec<&str> = got.iter().flat_map(|got| &got.rooms).map(Room::as_str).collect();
            let same =
                rooms.len() == got.len() && rooms.iter().zip(&got).all(|(room, got)| room.matches(got.as_bytes()));
            self.differ("rooms", same, list(rooms.iter().map(ToString::to_string)), format!("{got:?}"));
        }
        if let Some(claims) = &expect.claims {
            self.entries("claims", claims, got.map_or(&Entries::new(), |got| &got.claims));
        }
    }

    fn reply(&mut self, expected: &ReplyOut, got: Option<&Answer>) {
        self.text("reply.code", expected.code.as_ref(), got.map(|got| got.code.as_str()));
        self.text("reply.message", expected.message.as_ref(), got.map(|got| got.message.as_str()));
        if let Some(data) = &expected.data {
            self.entries("reply.data", data, got.map_or(&Entries::new(), |got| &got.data));
        }
    }

    fn effects(&mut self, expected: &[PushOut], got: &[Effect]) {
        for (index, expected) in expected.iter().enumerate() {
            let at = format!("pushes[{index}]");
            match got.get(index) {
                Some(effect) => self.effect(&at, expected, effect),
                None => self.differ(&at, false, kind(expected), NOTHING),
            }
        }
        for (index, effect) in got.iter().enumerate().skip(expected.len()) {
            self.differ(&format!("pushes[{index}]"), false, NOTHING, shown_effect(effect));
        }
    }

    fn effect(&mut self, at: &str, expected: &PushOut, got: &Effect) {
        match (got, &expected.join, &expected.leave, &expected.kick) {
            (Effect::Login(cid, account), None, None, None) if expected.login.is_some() => {
                self.login(at, expected.login.as_ref(), *cid, account);
            }
            (Effect::Push(push), None, None, None) if expected.login.is_none() => self.push(at, expected, push),
            (Effect::Join(uid, room), Some(join), None, None) => {
                let same = (uid, room) == (&join.uid.0, &join.room.0);
                self.differ(at, same, format!("join {} to {}", join.uid.0, join.room.0), shown_effect(got));
            }
            (Effect::Leave(uid, room), None, Some(leave), None) => {
                let same = (uid, room) == (&leave.uid.0, &leave.room.0);
                self.differ(at, same, format!("leave {} from {}", leave.uid.0, leave.room.0), shown_effect(got));
            }
            (Effect::Kick(to, reason), None, None, Some(kick)) => {
                self.target(&format!("{at}.to"), target(&kick.to), to);
                self.text(&format!("{at}.reason"), kick.reason.as_ref(), Some(reason));
            }
            _ => self.differ(at, false, kind(expected), shown_effect(got)),
        }
    }

    fn login(&mut self, at: &str, expected: Option<&LoginOut>, cid: ConnectionId, got: &Account) {
        let Some(expected) = expected else { return };
        let (admission, named) = (&got.admission, &expected.uid.0);
        let same = expected.cid == cid.as_u64() && *named == admission.uid;
        let expected_login = format!("login of {} as {named}", expected.cid);
        self.differ(at, same, expected_login, format!("login of {cid} as {}", admission.uid));
        let device = admission.device.as_ref().map(Device::as_str);
        self.text(&format!("{at}.device"), expected.device.as_ref(), device);
        self.text(&format!("{at}.channel"), expected.channel.as_ref(), got.channel.as_deref());
        self.number(&format!("{at}.expires"), expected.expires, admission.expires);
    }

    fn push(&mut self, at: &str, expected: &PushOut, got: &Publication) {
        if let Some(to) = &expected.to {
            self.target(&format!("{at}.to"), target(to), &got.target);
        }
        if let Some(message) = &expected.message {
            self.message(&format!("{at}.message"), message, &got.message, None);
        }
        self.text(&format!("{at}.key"), expected.key.as_ref(), got.key.as_deref());
        self.number(&format!("{at}.no_echo"), expected.no_echo, got.no_echo.map(ConnectionId::as_u64));
    }

    fn requests(&mut self, expected: &[HttpOut], got: &[SentRequest]) {
        for index in 0..expected.len().max(got.len()) {
            let at = format!("http[{index}]");
            let shown = |asked: &SentRequest| format!("{} {}", asked.method, asked.url);
            match (expected.get(index), got.get(index)) {
                (Some(expected), Some(got)) => self.request(&at, expected, got),
                (Some(_), None) => self.differ(&at, false, "a request", NOTHING),
                (None, got) => self.differ(&at, false, NOTHING, got.map(shown).unwrap_or_default()),
            }
        }
    }

    fn request(&mut self, at: &str, expected: &HttpOut, got: &SentRequest) {
        let method = expected.method.clone().map(Text::Exact);
        self.text(&format!("{at}.method"), method.as_ref(), Some(&got.method));
        self.text(&format!("{at}.url"), expected.url.as_ref(), Some(&got.url));
        self.bytes(&format!("{at}.body"), expected.body.as_ref(), Some(&got.body));
        for (name, value) in expected.headers.iter().flat_map(|pairs| &pairs.0) {
            let found = got.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
            let found = found.map(|(_, value)| value.as_str());
            self.text(&format!("{at}.headers.{name}"), Some(value), found);
        }
    }

    /// Compares a timer, which may be required or forbidden.
    pub(super) fn timer(&mut self, at: &str, expected: Option<Duration>, got: Option<Duration>) {
        let shown = |time: Option<Duration>| time.map_or_else(|| NOTHING.to_owned(), |t| format!("in {t:?}"));
        self.differ(at, expected == got, shown(expected), shown(got));
    }

    fn target(&mut self, at: &str, expected: Result<Target, String>, got: &Target) {
        match expected {
            Ok(expected) => self.differ(at, expected == *got, shown_target(&expected), shown_target(got)),
            Err(fault) => self.differ(at, false, fault, shown_target(got)),
        }
    }

    fn log(&mut self, expected: &[LineOut], outcome: &StepOutcome) {
        let line = |line: &LineOut| match line {
            LineOut::Debug(text) => ("debug", text.clone()),
            LineOut::Info(text) => ("info", text.clone()),
            LineOut::Warn(text) => ("warn", text.clone()),
            LineOut::Error(text) => ("error", text.clone()),
        };
        let expected: Vec<(&str, Text)> = expected.iter().map(line).collect();
        for index in 0..expected.len().max(outcome.log.len()) {
            let (expected, got) = (expected.get(index), outcome.log.get(index));
            let same = expected
                .zip(got)
                .is_some_and(|((level, text), got)| *level == got.level && text.matches(got.text.as_bytes()));
            let expected = expected.map_or_else(|| NOTHING.to_owned(), |(level, text)| format!("{level} {text}"));
            let got = got.map_or_else(|| NOTHING.to_owned(), |got| format!("{} {:?}", got.level, got.text));
            self.differ(&format!("log[{index}]"), same, expected, got);
        }
    }
}

fn word(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

fn exactly(entries: &Entries) -> Pairs<Text> {
    Pairs(entries.iter().map(|(key, value)| (key.to_owned(), Text::Exact(value.to_owned()))).collect())
}

fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => format!("{text:?}"),
        Err(_) => Text::Bytes(bytes.to_owned()).to_string(),
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

fn kind(expected: &PushOut) -> String {
    let of = [
        ("join", expected.join.is_some()),
        ("leave", expected.leave.is_some()),
        ("kick", expected.kick.is_some()),
        ("login", expected.login.is_some()),
    ];
    of.iter().find(|(_, is_it)| *is_it).map_or("a push", |(kind, _)| kind).to_owned()
}

fn shown_effect(effect: &Effect) -> String {
    match effect {
        Effect::Push(push) => format!("a push to {}, action {:?}", shown_target(&push.target), push.message.action),
        Effect::Join(uid, room) => format!("join {uid} to {room}"),
        Effect::Leave(uid, room) => format!("leave {uid} from {room}"),
        Effect::Kick(to, reason) => format!("kick {}, {reason:?}", shown_target(to)),
        Effect::Login(cid, account) => format!("login of {cid} as {}", account.admission.uid),
    }
}

fn shown_target(target: &Target) -> String {
    let users = |users: &[Uid]| list(users.iter().map(ToString::to_string));
    match target {
        Target::Connection(cid) => format!("connection {cid}"),
        Target::ConnectionOf(uid, cid) => format!("connection {cid} of {uid}"),
        Target::Device(uid, device) => format!("device {device} of {uid}"),
        Target::User(uid) => format!("user {uid}"),
        Target::Users(named) => format!("users {}", users(named)),
        Target::Room(room) => format!("room {room}"),
        Target::Everyone => "everyone".to_owned(),
        Target::EveryoneBut(named) => format!("everyone but {}", users(named)),
    }
}

//! What a case file says: what is given, what the plugin is asked, what is expected of it. Documented in `docs/plugins.md`.

use std::path::PathBuf;

use serde::Deserialize;
use serde_saphyr::Spanned;
use toml::Table;

use super::words::{Moment, Name, Pairs, Span, Text};
use crate::id::{Device, Room, Uid};

/// A whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CaseFile {
    /// The component, relative to the file.
    pub(super) plugin: Option<PathBuf>,
    #[serde(default)]
    pub(super) given: Given,
    pub(super) cases: Vec<Case>,
}

/// What stands around the plugin. What a case gives stands in the place of what its file gives, key by key.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Given {
    pub(super) now: Option<Name<Moment>>,
    pub(super) random: Option<u64>,
    pub(super) manifest: Option<Table>,
    pub(super) grants: Option<Vec<String>>,
    pub(super) settings: Option<Table>,
    pub(super) kv: Option<Pairs<Text>>,
    pub(super) online: Option<Vec<Person>>,
}

impl Given {
    pub(super) fn over(self, file: &Self) -> Self {
        let file = file.clone();
        Self {
            now: self.now.or(file.now),
            random: self.random.or(file.random),
            manifest: self.manifest.or(file.manifest),
            grants: self.grants.or(file.grants),
            settings: self.settings.or(file.settings),
            kv: self.kv.or(file.kv),
            online: self.online.or(file.online),
        }
    }
}

/// A connection, and whose it is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Person {
    pub(super) uid: Name<Uid>,
    pub(super) cid: Option<u64>,
    pub(super) device: Option<Name<Device>>,
    pub(super) channel: Option<String>,
    #[serde(default)]
    pub(super) rooms: Vec<Name<Room>>,
}

/// One case: the only step's keys may stand in the case itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    pub(super) given: Given,
    pub(super) refused: Option<String>,
    pub(super) steps: Option<Vec<Step>>,
    admit: Option<Admit>,
    judge: Option<Judge>,
    call: Option<CallIn>,
    event: Option<EventIn>,
    wait: Option<Name<Span>>,
    times: Option<u32>,
    expect: Option<Expect>,
}

/// One thing that the plugin is asked, or one pause.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    pub(super) admit: Option<Admit>,
    pub(super) judge: Option<Judge>,
    pub(super) call: Option<CallIn>,
    pub(super) event: Option<EventIn>,
    pub(super) wait: Option<Name<Span>>,
    pub(super) times: Option<u32>,
    #[serde(default)]
    pub(super) expect: Expect,
}

impl Case {
    /// Its steps, however they are written.
    ///
    /// # Errors
    /// What is missing or too much.
    pub(super) fn take_steps(&mut self) -> Result<Vec<Step>, String> {
        let own = Step {
            admit: self.admit.take(),
            judge: self.judge.take(),
            call: self.call.take(),
            event: self.event.take(),
            wait: self.wait.take(),
            times: self.times.take(),
            expect: self.expect.take().unwrap_or_default(),
        };
        let mut steps = self.steps.take().unwrap_or_default();
        match (own.actions(), steps.is_empty()) {
            (0, _) => {}
            (_, true) => steps.push(own),
            (_, false) => return Err("expected steps, or one step's keys, got both".to_owned()),
        }
        if let Some(wrong) = steps.iter().position(|step| step.actions() != 1) {
            let got = steps[wrong].actions();
            return Err(format!("step {}: expected one of admit, judge, call, event, wait, got {got}", wrong + 1));
        }
        if steps.is_empty() && self.refused.is_none() {
            return Err("expected one of admit, judge, call, event, wait, steps, refused, got none".to_owned());
        }
        Ok(steps)
    }
}

impl Step {
    fn actions(&self) -> usize {
        let asked = [
            self.admit.is_some(),
            self.judge.is_some(),
            self.call.is_some(),
            self.event.is_some(),
            self.wait.is_some(),
        ];
        asked.iter().filter(|is_asked| **is_asked).count()
    }
}

/// What the transport knows and what the client says, side by side.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Admit {
    pub(super) listener: Listener,
    pub(super) remote: Option<String>,
    pub(super) path: Option<String>,
    pub(super) origin: Option<String>,
    pub(super) user_agent: Option<String>,
    pub(super) bound: Option<Name<Uid>>,
    pub(super) token: Option<String>,
    pub(super) uid: Option<String>,
    pub(super) device: Option<String>,
    pub(super) channel: Option<String>,
    pub(super) data: Pairs<String>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Listener {
    #[default]
    Ws,
    Cim,
    CimTcp,
}

/// A publish.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Judge {
    #[serde(default)]
    pub(super) message: MessageIn,
    pub(super) to: Option<TargetIn>,
    pub(super) from: Option<Person>,
    pub(super) origin: Option<OriginIn>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OriginIn {
    Client,
    Http,
    Broker,
    Plugin,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct MessageIn {
    pub(super) id: i64,
    pub(super) action: String,
    pub(super) content: Pairs<String>,
    pub(super) sender: String,
    pub(super) receiver: String,
    pub(super) extra: Pairs<String>,
    pub(super) title: String,
    pub(super) image: String,
    pub(super) format: String,
    pub(super) timestamp: i64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TargetIn {
    Connection(u64),
    Device(DeviceOf),
    User(Name<Uid>),
    Users(Vec<Name<Uid>>),
    Room(Name<Room>),
    Everyone,
    EveryoneBut(Vec<Name<Uid>>),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeviceOf {
    pub(super) uid: Name<Uid>,
    pub(super) device: Name<Device>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CallIn {
    pub(super) key: String,
    #[serde(default)]
    pub(super) data: Pairs<String>,
    pub(super) caller: Option<Person>,
    pub(super) cid: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum EventIn {
    Online(Person),
    Offline(Person),
    RoomJoined(RoomChange),
    RoomLeft(RoomChange),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RoomChange {
    pub(super) who: Person,
    pub(super) room: Name<Room>,
}

/// What is expected of a step; what is not named is not compared, but that a call fails.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Expect {
    pub(super) verdict: Option<Verdict>,
    pub(super) code: Option<Text>,
    pub(super) reason: Option<Text>,
    pub(super) message: Option<MessageOut>,
    pub(super) uid: Option<Text>,
    pub(super) device: Option<Text>,
    pub(super) rooms: Option<Vec<Text>>,
    pub(super) expires: Option<u64>,
    pub(super) claims: Option<Pairs<Text>>,
    pub(super) reply: Option<ReplyOut>,
    pub(super) pushes: Option<Vec<PushOut>>,
    pub(super) kv: Option<Pairs<Option<Text>>>,
    pub(super) log: Option<Vec<LineOut>>,
    pub(super) fails: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Allow,
    Replace,
    Reject,
    Drop,
    Unasked,
    Admit,
    Refuse,
    Abstain,
}

/// Fields of a message that are named.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct MessageOut {
    pub(super) id: Option<i64>,
    pub(super) action: Option<Text>,
    pub(super) content: Option<Pairs<Text>>,
    pub(super) sender: Option<Text>,
    pub(super) receiver: Option<Text>,
    pub(super) extra: Option<Pairs<Text>>,
    pub(super) title: Option<Text>,
    pub(super) image: Option<Text>,
    pub(super) format: Option<Text>,
    pub(super) timestamp: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplyOut {
    pub(super) code: Option<Text>,
    pub(super) message: Option<Text>,
    pub(super) data: Option<Pairs<Text>>,
}

/// One effect, in the order in which they were asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PushOut {
    pub(super) to: Option<TargetIn>,
    pub(super) message: Option<MessageOut>,
    pub(super) key: Option<Text>,
    pub(super) no_echo: Option<u64>,
    pub(super) join: Option<Membership>,
    pub(super) leave: Option<Membership>,
    pub(super) kick: Option<KickOut>,
    pub(super) login: Option<LoginOut>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Membership {
    pub(super) uid: Name<Uid>,
    pub(super) room: Name<Room>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KickOut {
    pub(super) to: TargetIn,
    pub(super) reason: Option<Text>,
}

/// A connection that becomes a user's.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LoginOut {
    pub(super) cid: u64,
    pub(super) uid: Name<Uid>,
    pub(super) device: Option<Text>,
    pub(super) channel: Option<Text>,
    pub(super) expires: Option<u64>,
}

/// A line of the log, named by its level.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum LineOut {
    Debug(Text),
    Info(Text),
    Warn(Text),
    Error(Text),
}

//! Format of a case file: setup, steps and expectations. Documented in `docs/reference/plugin-cases.md`.

use std::path::PathBuf;

use serde::Deserialize;
use serde_saphyr::Spanned;
use toml::Table;

use super::history::HistoryIn;
use super::words::{Moment, Name, Pairs, Span, Text};
use crate::id::{Device, Room, Uid};
use crate::message::StreamName;

/// A whole case file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli::plugin) struct CaseFile {
    /// Path of the component, relative to the file.
    pub(in crate::cli::plugin) plugin: Option<PathBuf>,
    #[serde(default)]
    pub(in crate::cli::plugin) given: Given,
    pub(in crate::cli::plugin) cases: Vec<Case>,
}

/// Environment of the plugin. Each key of a case replaces the same key of its file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli::plugin) struct Given {
    pub(in crate::cli::plugin) now: Option<Name<Moment>>,
    pub(in crate::cli::plugin) random: Option<u64>,
    pub(in crate::cli::plugin) manifest: Option<Table>,
    pub(in crate::cli::plugin) grants: Option<Vec<String>>,
    pub(in crate::cli::plugin) settings: Option<Table>,
    pub(in crate::cli::plugin) kv: Option<Pairs<Text>>,
    pub(in crate::cli::plugin) online: Option<Vec<OnlineConnection>>,
    pub(in crate::cli::plugin) http: Option<Vec<HttpIn>>,
    pub(in crate::cli::plugin) history: Option<HistoryIn>,
}

impl Given {
    pub(in crate::cli::plugin) fn over(self, file: &Self) -> Self {
        let file = file.clone();
        Self {
            now: self.now.or(file.now),
            random: self.random.or(file.random),
            manifest: self.manifest.or(file.manifest),
            grants: self.grants.or(file.grants),
            settings: self.settings.or(file.settings),
            kv: self.kv.or(file.kv),
            online: self.online.or(file.online),
            http: self.http.or(file.http),
            history: self.history.or(file.history),
        }
    }
}

/// A connection and its user.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli::plugin) struct OnlineConnection {
    pub(in crate::cli::plugin) uid: Name<Uid>,
    pub(in crate::cli::plugin) cid: Option<u64>,
    pub(in crate::cli::plugin) device: Option<Name<Device>>,
    pub(in crate::cli::plugin) channel: Option<String>,
    #[serde(default)]
    pub(in crate::cli::plugin) rooms: Vec<Name<Room>>,
}

/// The response of the network to one request.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli::plugin) struct HttpIn {
    pub(in crate::cli::plugin) method: Option<String>,
    pub(in crate::cli::plugin) url: String,
    pub(in crate::cli::plugin) status: Option<u16>,
    #[serde(default)]
    pub(in crate::cli::plugin) headers: Pairs<String>,
    pub(in crate::cli::plugin) body: Option<Text>,
    pub(in crate::cli::plugin) fails: Option<HttpFailure>,
}

/// Reason for a missing response.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::cli::plugin) enum HttpFailure {
    Denied,
    Unreachable,
    Timeout,
    TooLarge,
    Broken,
    Busy,
}

/// One case. The keys of a single step may be in the case itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli::plugin) struct Case {
    pub(in crate::cli::plugin) name: Spanned<String>,
    #[serde(default)]
    pub(in crate::cli::plugin) given: Given,
    pub(in crate::cli::plugin) refused: Option<String>,
    pub(in crate::cli::plugin) steps: Option<Vec<Step>>,
    admit: Option<Admit>,
    judge: Option<Judge>,
    call: Option<CallIn>,
    event: Option<EventIn>,
    join: Option<JoinIn>,
    hops: Option<u8>,
    wait: Option<Name<Span>>,
    times: Option<u32>,
    expect: Option<Expect>,
}

/// Kinds of steps.
const STEPS: &str = "admit, judge, call, event, join, wait";

/// One call of the plugin, or one pause.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli::plugin) struct Step {
    pub(in crate::cli::plugin) admit: Option<Admit>,
    pub(in crate::cli::plugin) judge: Option<Judge>,
    pub(in crate::cli::plugin) call: Option<CallIn>,
    pub(in crate::cli::plugin) event: Option<EventIn>,
    pub(in crate::cli::plugin) join: Option<JoinIn>,
    /// Number of plugin calls that led to the event.
    pub(in crate::cli::plugin) hops: Option<u8>,
    pub(in crate::cli::plugin) wait: Option<Name<Span>>,
    pub(in crate::cli::plugin) times: Option<u32>,
    #[serde(default)]
    pub(in crate::cli::plugin) expect: Expect,
}

impl Case {
    /// True if the case has its own setup.
    pub(in crate::cli::plugin) fn gives(&self) -> bool {
        let Given { now, random, manifest, grants, settings, kv, online, http, history } = &self.given;
        let tables = [manifest.is_some(), grants.is_some(), settings.is_some(), kv.is_some()];
        let around = [now.is_some(), random.is_some(), online.is_some(), http.is_some(), history.is_some()];
        tables.contains(&true) || around.contains(&true)
    }

    /// The steps, in either notation.
    ///
    /// # Errors
    /// Names missing or superfluous keys.
    pub(in crate::cli::plugin) fn take_steps(&mut self) -> Result<Vec<Step>, String> {
        let own = Step {
            admit: self.admit.take(),
            judge: self.judge.take(),
            call: self.call.take(),
            event: self.event.take(),
            join: self.join.take(),
            hops: self.hops.take(),
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
            return Err(format!("step {}: expected one of {STEPS}, got {got}", wrong + 1));
        }
        if steps.is_empty() && self.refused.is_none() {
            return Err(format!("expected one of {STEPS}, steps, refused, got none"));
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
            self.join.is_some(),
            self.wait.is_some(),
        ];
        asked.iter().filter(|is_asked| **is_asked).count()
    }
}

/// Data of the transport and of the client.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::cli::plugin) struct Admit {
    pub(in crate::cli::plugin) listener: Listener,
    pub(in crate::cli::plugin) remote: Option<String>,
    pub(in crate::cli::plugin) path: Option<String>,
    pub(in crate::cli::plugin) origin: Option<String>,
    pub(in crate::cli::plugin) user_agent: Option<String>,
    pub(in crate::cli::plugin) bound: Option<Name<Uid>>,
    pub(in crate::cli::plugin) token: Option<String>,
    pub(in crate::cli::plugin) uid: Option<String>,
    pub(in crate::cli::plugin) device: Option<String>,
    pub(in crate::cli::plugin) channel: Option<String>,
    pub(in crate::cli::plugin) data: Pairs<String>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::cli::plugin) enum Listener {
    #[default]
    Ws,
    Cim,
    CimTcp,
}

/// A publish.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli::plugin) struct Judge {
    #[serde(default)]
    pub(in crate::cli::plugin) message: MessageIn,
    pub(in crate::cli::plugin) to: Option<TargetIn>,
    pub(in crate::cli::plugin) from: Option<OnlineConnection>,
    pub(in crate::cli::plugin) origin: Option<OriginIn>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli::plugin) enum OriginIn {
    Client,
    Http,
    Broker,
    Plugin,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::cli::plugin) struct MessageIn {
    pub(in crate::cli::plugin) id: i64,
    pub(in crate::cli::plugin) action: String,
    pub(in crate::cli::plugin) content: Pairs<String>,
    pub(in crate::cli::plugin) sender: String,
    pub(in crate::cli::plugin) receiver: String,
    pub(in crate::cli::plugin) extra: Pairs<String>,
    pub(in crate::cli::plugin) title: String,
    pub(in crate::cli::plugin) image: String,
    pub(in crate::cli::plugin) format: String,
    pub(in crate::cli::plugin) timestamp: i64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::cli::plugin) enum TargetIn {
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
pub(in crate::cli::plugin) struct DeviceOf {
    pub(in crate::cli::plugin) uid: Name<Uid>,
    pub(in crate::cli::plugin) device: Name<Device>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli::plugin) struct CallIn {
    pub(in crate::cli::plugin) key: String,
    #[serde(default)]
    pub(in crate::cli::plugin) data: Pairs<String>,
    pub(in crate::cli::plugin) caller: Option<OnlineConnection>,
    pub(in crate::cli::plugin) cid: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::cli::plugin) enum EventIn {
    Online(OnlineConnection),
    Offline(OnlineConnection),
    RoomJoined(RoomChange),
    RoomLeft(RoomChange),
    Resumed(ResumedIn),
    Undelivered(UndeliveredIn),
}

/// A client that came back.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli::plugin) struct ResumedIn {
    pub(in crate::cli::plugin) who: OnlineConnection,
    pub(in crate::cli::plugin) streams: Vec<ResumedStreamIn>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli::plugin) struct ResumedStreamIn {
    pub(in crate::cli::plugin) name: Name<StreamName>,
    pub(in crate::cli::plugin) recovered: bool,
    pub(in crate::cli::plugin) count: Option<u64>,
}

/// A message that reached no device.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli::plugin) struct UndeliveredIn {
    pub(in crate::cli::plugin) uid: Name<Uid>,
    pub(in crate::cli::plugin) id: i64,
    pub(in crate::cli::plugin) cause: CauseIn,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli::plugin) enum CauseIn {
    Offline,
    Unacknowledged,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli::plugin) struct RoomChange {
    pub(in crate::cli::plugin) who: OnlineConnection,
    pub(in crate::cli::plugin) room: Name<Room>,
}

/// A join request for an access plugin.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli::plugin) struct JoinIn {
    pub(in crate::cli::plugin) who: OnlineConnection,
    #[serde(default)]
    pub(in crate::cli::plugin) claims: Pairs<String>,
    pub(in crate::cli::plugin) room: Name<Room>,
    #[serde(default)]
    pub(in crate::cli::plugin) data: Pairs<String>,
}

/// Expectations of a step. Omitted keys are not compared, except that a failed call is always reported.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::cli::plugin) struct Expect {
    pub(in crate::cli::plugin) verdict: Option<Verdict>,
    pub(in crate::cli::plugin) code: Option<Text>,
    pub(in crate::cli::plugin) reason: Option<Text>,
    pub(in crate::cli::plugin) message: Option<MessageOut>,
    pub(in crate::cli::plugin) uid: Option<Text>,
    pub(in crate::cli::plugin) device: Option<Text>,
    pub(in crate::cli::plugin) rooms: Option<Vec<Text>>,
    pub(in crate::cli::plugin) expires: Option<u64>,
    pub(in crate::cli::plugin) claims: Option<Pairs<Text>>,
    pub(in crate::cli::plugin) until: Option<u64>,
    pub(in crate::cli::plugin) reply: Option<ReplyOut>,
    pub(in crate::cli::plugin) pushes: Option<Vec<PushOut>>,
    pub(in crate::cli::plugin) kv: Option<Pairs<Option<Text>>>,
    pub(in crate::cli::plugin) log: Option<Vec<LineOut>>,
    pub(in crate::cli::plugin) rang: Option<Vec<Text>>,
    pub(in crate::cli::plugin) timers: Option<Pairs<Option<Name<Span>>>>,
    pub(in crate::cli::plugin) http: Option<Vec<HttpOut>>,
    pub(in crate::cli::plugin) fails: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli::plugin) enum Verdict {
    Allow,
    Replace,
    Reject,
    Drop,
    Unasked,
    Admit,
    Refuse,
    Abstain,
    /// The filter failed, so the node answers 503.
    Unjudged,
}

/// Expected fields of a message.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::cli::plugin) struct MessageOut {
    pub(in crate::cli::plugin) id: Option<i64>,
    pub(in crate::cli::plugin) action: Option<Text>,
    pub(in crate::cli::plugin) content: Option<Pairs<Text>>,
    pub(in crate::cli::plugin) sender: Option<Text>,
    pub(in crate::cli::plugin) receiver: Option<Text>,
    pub(in crate::cli::plugin) extra: Option<Pairs<Text>>,
    pub(in crate::cli::plugin) title: Option<Text>,
    pub(in crate::cli::plugin) image: Option<Text>,
    pub(in crate::cli::plugin) format: Option<Text>,
    pub(in crate::cli::plugin) timestamp: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli::plugin) struct ReplyOut {
    pub(in crate::cli::plugin) code: Option<Text>,
    pub(in crate::cli::plugin) message: Option<Text>,
    pub(in crate::cli::plugin) data: Option<Pairs<Text>>,
}

/// One expected effect, in the order of the plugin's requests.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli::plugin) struct PushOut {
    pub(in crate::cli::plugin) to: Option<TargetIn>,
    pub(in crate::cli::plugin) message: Option<MessageOut>,
    pub(in crate::cli::plugin) key: Option<Text>,
    pub(in crate::cli::plugin) no_echo: Option<u64>,
    pub(in crate::cli::plugin) join: Option<Membership>,
    pub(in crate::cli::plugin) leave: Option<Membership>,
    pub(in crate::cli::plugin) kick: Option<KickOut>,
    pub(in crate::cli::plugin) login: Option<LoginOut>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli::plugin) struct Membership {
    pub(in crate::cli::plugin) uid: Name<Uid>,
    pub(in crate::cli::plugin) room: Name<Room>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli::plugin) struct KickOut {
    pub(in crate::cli::plugin) to: TargetIn,
    pub(in crate::cli::plugin) reason: Option<Text>,
}

/// An expected login of a connection.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli::plugin) struct LoginOut {
    pub(in crate::cli::plugin) cid: u64,
    pub(in crate::cli::plugin) uid: Name<Uid>,
    pub(in crate::cli::plugin) device: Option<Text>,
    pub(in crate::cli::plugin) channel: Option<Text>,
    pub(in crate::cli::plugin) expires: Option<u64>,
}

/// One expected HTTP request, in the order of sending. Only the listed headers are compared.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli::plugin) struct HttpOut {
    pub(in crate::cli::plugin) method: Option<String>,
    pub(in crate::cli::plugin) url: Option<Text>,
    pub(in crate::cli::plugin) headers: Option<Pairs<Text>>,
    pub(in crate::cli::plugin) body: Option<Text>,
}

/// An expected log line, keyed by its level.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli::plugin) enum LineOut {
    Debug(Text),
    Info(Text),
    Warn(Text),
    Error(Text),
}

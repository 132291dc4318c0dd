//! Runs one step of a case: converts the file's values to a call and the answer to comparable values.

use std::sync::Arc;
use std::time::Duration;

use toml::{Table, Value};

use super::cases::{
    Admit, CallIn, CauseIn, DeviceOf, EventIn, Given, HttpFailure, HttpIn, JoinIn, Judge, Listener, MessageIn,
    OnlineConnection, OriginIn, ResumedStreamIn, RoomChange, Step, TargetIn, UndeliveredIn, Verdict,
};
use super::history::HistoryIn;
use super::words::{Name, Pairs, Text};
use crate::id::{ConnectionId, Uid};
use crate::message::{Entries, Envelope, Message, Origin, Publication, Publisher, Target};
use crate::plugin::fetch::{FetchError, FetchResponse};
use crate::plugin::harness::{self, CallFailure, Exchange, LoadedPlugin, SentRequest};
use crate::plugin::{
    Access, Admission, Answer, Call, Claim, Effect, Event, Identity, JoinRequest, Judgement, Presence, Refusal,
    ResumedStream, Transport, UndeliveredCause,
};
use crate::telemetry::guests::{GuestLine, GuestLog};

/// The default clock: 2026-01-01T00:00:00Z.
const NOW: Duration = Duration::from_secs(1_767_225_600);

/// Result of a step.
#[derive(Debug, Default)]
pub(super) struct StepOutcome {
    pub(super) failed: Option<CallFailure>,
    pub(super) verdict: Option<Verdict>,
    pub(super) refusal: Option<Refusal>,
    /// The message of a publish, before and after.
    pub(super) before: Option<Arc<Message>>,
    pub(super) after: Option<Arc<Message>>,
    pub(super) admission: Option<Admission>,
    /// The end of a membership.
    pub(super) until: Option<u64>,
    pub(super) reply: Option<Answer>,
    pub(super) effects: Vec<Effect>,
    pub(super) log: Vec<GuestLine>,
    /// Timers that fired.
    pub(super) rang: Vec<String>,
    pub(super) requests: Vec<SentRequest>,
}

/// Builds the setup of the test host from a case.
///
/// # Errors
/// A number is not a valid connection id, or a text is not the name of a stream.
pub(in crate::cli::plugin) fn setup(given: &Given) -> Result<harness::Given, String> {
    let mut manifest = given.manifest.clone().unwrap_or_default();
    if let Some(settings) = &given.settings {
        manifest.insert("settings".to_owned(), Value::Table(settings.clone()));
    }
    if let Some(grants) = &given.grants {
        manifest.insert("grants".to_owned(), Value::Array(grants.iter().cloned().map(Value::String).collect()));
    }
    let connections = given.online.iter().flatten().zip(1..);
    let kv = given.kv.iter().flat_map(|pairs| &pairs.0);
    Ok(harness::Given {
        manifest: Table::from_iter(manifest),
        now: given.now.map_or(NOW, |Name(moment)| moment.0),
        seed: given.random.unwrap_or_default(),
        kv: kv.map(|(key, text)| (key.clone(), text.bytes())).collect(),
        http: given.http.iter().flatten().map(exchange).collect(),
        history: given.history.as_ref().map(HistoryIn::given).transpose()?.unwrap_or_default(),
        online: connections.map(|(connection, number)| presence(connection, number)).collect::<Result<_, _>>()?,
    })
}

fn exchange(given: &HttpIn) -> Exchange {
    let answer = match given.fails {
        None => Ok(FetchResponse {
            status: given.status.unwrap_or(200),
            headers: given.headers.0.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect(),
            body: given.body.as_ref().map(Text::bytes).unwrap_or_default(),
        }),
        Some(HttpFailure::Denied) => Err(FetchError::Denied("denied by the case".to_owned())),
        Some(HttpFailure::Unreachable) => Err(FetchError::Unreachable("unreachable by the case".to_owned())),
        Some(HttpFailure::Timeout) => Err(FetchError::Timeout),
        Some(HttpFailure::TooLarge) => Err(FetchError::TooLarge),
        Some(HttpFailure::Broken) => Err(FetchError::Broken("broken by the case".to_owned())),
        Some(HttpFailure::Busy) => Err(FetchError::Busy),
    };
    Exchange { method: given.method.clone().unwrap_or_else(|| "GET".to_owned()), url: given.url.clone(), answer }
}

fn cid(number: u64) -> Result<ConnectionId, String> {
    ConnectionId::new(number).ok_or_else(|| format!("cid: expected 1 to 2^53 - 1, got {number}"))
}

fn presence(connection: &OnlineConnection, number: u64) -> Result<(Uid, Presence), String> {
    let presence = Presence {
        cid: cid(connection.cid.unwrap_or(number))?,
        device: connection.device.clone().map(|Name(device)| device),
        channel: connection.channel.clone(),
        rooms: connection.rooms.iter().map(|Name(room)| room.clone()).collect(),
    };
    Ok((connection.uid.0.clone(), presence))
}

fn identity(connection: &OnlineConnection) -> Result<Identity, String> {
    Ok(Identity {
        uid: connection.uid.0.clone(),
        cid: cid(connection.cid.unwrap_or(1))?,
        device: connection.device.clone().map(|Name(device)| device),
        channel: connection.channel.clone(),
    })
}

/// Runs the step `times` times. Returns the last outcome, or the first failure.
///
/// # Errors
/// The case contains an invalid request.
pub(super) async fn run_step(loaded: &LoadedPlugin, log: &GuestLog, step: &Step) -> Result<StepOutcome, String> {
    let mut outcome = StepOutcome::default();
    for _ in 0..step.times.unwrap_or(1).max(1) {
        let begun = log.next();
        outcome = run_once(loaded, step).await?;
        outcome.effects = loaded.take_effects();
        outcome.log = log.since(begun);
        outcome.requests = loaded.take_requests();
        if outcome.failed.is_some() {
            break;
        }
    }
    Ok(outcome)
}

async fn run_once(loaded: &LoadedPlugin, step: &Step) -> Result<StepOutcome, String> {
    if let Some(admit) = &step.admit {
        return Ok(admitted(loaded, admit).await);
    }
    if let Some(judge) = &step.judge {
        return judged(loaded, judge).await;
    }
    if let Some(call) = &step.call {
        return handled(loaded, call).await;
    }
    if let Some(event) = &step.event {
        let result = loaded.deliver(&event_of(event)?, step.hops.unwrap_or_default()).await;
        return Ok(StepOutcome { failed: result.err(), ..StepOutcome::default() });
    }
    if let Some(join) = &step.join {
        return joined(loaded, join).await;
    }
    let Some(Name(span)) = step.wait else { return Ok(StepOutcome::default()) };
    Ok(match loaded.advance(span.0).await {
        Ok(rang) => StepOutcome { rang, ..StepOutcome::default() },
        Err(failed) => StepOutcome { failed: Some(failed), ..StepOutcome::default() },
    })
}

/// Builds transport and claim.
pub(in crate::cli::plugin) fn claim(admit: &Admit) -> (Transport, Claim) {
    let transport = Transport {
        listener: match admit.listener {
            Listener::Ws => "ws",
            Listener::Cim => "cim",
            Listener::CimTcp => "cim-tcp",
        },
        remote: admit.remote.clone().unwrap_or_else(|| "127.0.0.1".to_owned()),
        path: admit.path.clone().unwrap_or_default(),
        origin: admit.origin.clone(),
        user_agent: admit.user_agent.clone(),
        bound: admit.bound.clone().map(|Name(uid)| uid),
    };
    let claim = Claim {
        token: admit.token.clone(),
        uid: admit.uid.clone(),
        device: admit.device.clone(),
        channel: admit.channel.clone(),
        data: entries(&admit.data),
    };
    (transport, claim)
}

async fn admitted(loaded: &LoadedPlugin, admit: &Admit) -> StepOutcome {
    let (transport, claim) = claim(admit);
    let (verdict, admission, refusal) = match loaded.admit(&transport, &claim).await {
        Ok(Some(Ok(admission))) => (Verdict::Admit, Some(admission), None),
        Ok(Some(Err(refusal))) => (Verdict::Refuse, None, Some(refusal)),
        Ok(None) => (Verdict::Abstain, None, None),
        Err(failed) => {
            return StepOutcome { verdict: Some(Verdict::Refuse), failed: Some(failed), ..StepOutcome::default() };
        }
    };
    StepOutcome { verdict: Some(verdict), admission, refusal, ..StepOutcome::default() }
}

/// Builds the join request.
///
/// # Errors
/// A number is not a valid connection id.
pub(in crate::cli::plugin) fn join_of(join: &JoinIn) -> Result<JoinRequest, String> {
    let (who, Name(room)) = (identity(&join.who)?, &join.room);
    Ok(JoinRequest { who, claims: entries(&join.claims), room: room.clone(), data: entries(&join.data) })
}

async fn joined(loaded: &LoadedPlugin, join: &JoinIn) -> Result<StepOutcome, String> {
    let refused = StepOutcome { verdict: Some(Verdict::Refuse), ..StepOutcome::default() };
    Ok(match loaded.join(&join_of(join)?).await {
        Ok(None) => StepOutcome { verdict: Some(Verdict::Unasked), ..StepOutcome::default() },
        Ok(Some(Access::Allow(until))) => {
            StepOutcome { verdict: Some(Verdict::Allow), until, ..StepOutcome::default() }
        }
        Ok(Some(Access::Refuse(refusal))) => StepOutcome { refusal: Some(refusal), ..refused },
        Ok(Some(Access::Abstain)) => StepOutcome { verdict: Some(Verdict::Abstain), ..StepOutcome::default() },
        Ok(Some(Access::Unavailable)) => refused,
        Err(failed) => StepOutcome { failed: Some(failed), ..refused },
    })
}

/// Builds the publish to judge.
///
/// # Errors
/// A number is not a valid connection id.
pub(in crate::cli::plugin) fn envelope(judge: &Judge) -> Result<Envelope, String> {
    let from = judge.from.as_ref().map(identity).transpose()?;
    let origin = match judge.origin {
        Some(OriginIn::Client) => Origin::Client,
        Some(OriginIn::Broker) => Origin::Broker,
        Some(OriginIn::Plugin) => Origin::Plugin,
        None if from.is_some() => Origin::Client,
        Some(OriginIn::Http) | None => Origin::Http,
    };
    let target = judge.to.as_ref().map_or(Ok(Target::Everyone), target)?;
    let publication = Publication {
        from: from.map(|who| Publisher { uid: who.uid, cid: who.cid }),
        ..Publication::new(message(&judge.message), target, origin)
    };
    Ok(publication.into_envelope(1, 0))
}

async fn judged(loaded: &LoadedPlugin, judge: &Judge) -> Result<StepOutcome, String> {
    let mut envelope = envelope(judge)?;
    let before = Arc::clone(&envelope.message);
    let judged = loaded.judge(&mut envelope).await;
    let (verdict, refusal) = match judged.judgement {
        Judgement::Pass { .. } if !judged.asked => (Verdict::Unasked, None),
        Judgement::Pass { replaced_by } if replaced_by.is_empty() => (Verdict::Allow, None),
        Judgement::Pass { .. } => (Verdict::Replace, None),
        Judgement::Reject { refusal, .. } => (Verdict::Reject, Some(refusal)),
        Judgement::Drop { .. } => (Verdict::Drop, None),
        Judgement::Unjudged(_) => (Verdict::Unjudged, None),
    };
    Ok(StepOutcome {
        verdict: Some(verdict),
        refusal,
        before: Some(before),
        after: Some(envelope.message),
        failed: judged.failed,
        ..StepOutcome::default()
    })
}

/// Builds the call of a key.
///
/// # Errors
/// A number is not a valid connection id.
pub(in crate::cli::plugin) fn call(call: &CallIn) -> Result<Call, String> {
    let caller = call.caller.as_ref().map(identity).transpose()?;
    let number = match (call.cid, &caller) {
        (Some(number), _) => cid(number)?,
        (None, Some(caller)) => caller.cid,
        (None, None) => cid(1)?,
    };
    Ok(Call { key: call.key.clone(), data: entries(&call.data), caller, cid: number, remote: String::new() })
}

async fn handled(loaded: &LoadedPlugin, asked: &CallIn) -> Result<StepOutcome, String> {
    match loaded.handle(&call(asked)?).await {
        Ok(Some(reply)) => Ok(StepOutcome { reply: Some(reply), ..StepOutcome::default() }),
        Ok(None) => Err(format!("call: the plugin does not own the key {:?}", asked.key)),
        Err(failed) => Ok(StepOutcome { failed: Some(failed), ..StepOutcome::default() }),
    }
}

/// Builds the event.
///
/// # Errors
/// A number is not a valid connection id.
pub(in crate::cli::plugin) fn event_of(event: &EventIn) -> Result<Event, String> {
    let change = |change: &RoomChange| Ok::<_, String>((identity(&change.who)?, change.room.0.clone()));
    Ok(match event {
        EventIn::Online(who) => Event::Online(identity(who)?),
        EventIn::Offline(who) => Event::Offline(identity(who)?),
        EventIn::RoomJoined(joined) => change(joined).map(|(who, room)| Event::RoomJoined(who, room))?,
        EventIn::RoomLeft(left) => change(left).map(|(who, room)| Event::RoomLeft(who, room))?,
        EventIn::Resumed(resumed) => {
            let stream = |stream: &ResumedStreamIn| ResumedStream {
                name: stream.name.0.clone(),
                recovered: stream.recovered,
                count: stream.count,
            };
            Event::Resumed(identity(&resumed.who)?, resumed.streams.iter().map(stream).collect())
        }
        EventIn::Undelivered(UndeliveredIn { uid: Name(uid), id, cause }) => {
            let cause = match cause {
                CauseIn::Offline => UndeliveredCause::Offline,
                CauseIn::Unacknowledged => UndeliveredCause::Unacknowledged,
            };
            Event::Undelivered(uid.clone(), *id, cause)
        }
    })
}

fn entries(pairs: &Pairs<String>) -> Entries {
    pairs.0.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

pub(super) fn message(given: &MessageIn) -> Message {
    Message {
        id: given.id,
        action: given.action.clone(),
        content: entries(&given.content),
        sender: given.sender.clone(),
        receiver: given.receiver.clone(),
        extra: entries(&given.extra),
        title: given.title.clone(),
        image: given.image.clone(),
        format: given.format.clone(),
        timestamp: given.timestamp,
    }
}

/// Converts a target of the file.
///
/// # Errors
/// A number is not a valid connection id.
pub(super) fn target(given: &TargetIn) -> Result<Target, String> {
    let users = |names: &[Name<Uid>]| names.iter().map(|Name(uid)| uid.clone()).collect();
    Ok(match given {
        TargetIn::Connection(number) => Target::Connection(cid(*number)?),
        TargetIn::Device(DeviceOf { uid: Name(uid), device: Name(device) }) => {
            Target::Device(uid.clone(), device.clone())
        }
        TargetIn::User(Name(uid)) => Target::User(uid.clone()),
        TargetIn::Users(names) => Target::Users(users(names)),
        TargetIn::Room(Name(room)) => Target::Room(room.clone()),
        TargetIn::Everyone => Target::Everyone,
        TargetIn::EveryoneBut(names) => Target::EveryoneBut(users(names)),
    })
}

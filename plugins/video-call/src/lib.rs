//! Signalling of calls between two users: invite, accept, reject, cancel, hang up.
//!
//! Checks each action against the state of the call and notifies the other user. The module `store` keeps the calls.
//! Handles no media: both sides of an accepted call get an address. README.md lists keys, pushes and answers.

mod settings;
mod store;

use skylark_plugin::{
    Alarms, Handler, Identity, Message, Plugin, Reply, Target, clock, directory, kv, log, outbox, timers,
};

pub use settings::Settings;
use store::{Call, Kind};

/// CIM action numbers of call events.
pub mod action {
    /// Invitation to a voice call.
    pub const VOICE: &str = "900";
    /// Invitation to a video call.
    pub const VIDEO: &str = "901";
    /// The invitation was accepted.
    pub const ACCEPT: &str = "902";
    /// The invitation was rejected.
    pub const REJECT: &str = "903";
    /// The called user is busy.
    pub const BUSY: &str = "904";
    /// The call ended.
    pub const HANG_UP: &str = "905";
    /// The caller cancelled the invitation.
    pub const CANCEL: &str = "906";
}

/// Attempts to enter an invitation while concurrent calls take one of the two users.
const TRIES: usize = 3;
/// Maximum length of a user name in bytes.
const MAX_NAME_BYTES: usize = 128;
/// Maximum bytes of a client value that an error reply repeats; more would cost time and add no information.
const SHOWN_BYTES: usize = 64;

/// The plugin, with its validated settings.
#[derive(Debug)]
pub struct VideoCall {
    settings: Settings,
}

impl Plugin for VideoCall {
    type Settings = Settings;

    fn start(settings: Settings) -> Result<Self, String> {
        settings.check()?;
        Ok(Self { settings })
    }
}

impl Handler for VideoCall {
    fn keys(&self) -> Vec<String> {
        ["call_invite", "call_accept", "call_reject", "call_cancel", "call_hangup"].map(str::to_owned).to_vec()
    }

    fn handle(&mut self, call: &skylark_plugin::Call) -> Result<Reply, String> {
        let Some(who) = &call.caller else { return Ok(Reply::new("401", "bind first")) };
        let done = match call.key.as_str() {
            "call_invite" => self.invite(who, call),
            "call_accept" => self.accept(who, call),
            "call_reject" => Self::reject(who, call),
            "call_cancel" => Self::cancel(who, call),
            _ => Self::hang_up(who, call),
        };
        match done {
            Ok(reply) | Err(No::Answer(reply)) => Ok(reply),
            Err(No::Host(reason)) => Err(reason),
        }
    }
}

/// Ends an unanswered call and notifies both users.
impl Alarms for VideoCall {
    fn on_timer(&mut self, id: &str, parties: &[u8]) {
        if let Some(call) = unanswered(id, &String::from_utf8_lossy(parties))
            && let Err(No::Host(reason)) = give_up(&call)
        {
            log::error(format!("call {id}: {reason}"));
        }
    }
}

/// The unanswered call; none if it was accepted at the last moment.
fn unanswered(id: &str, parties: &str) -> Option<Call> {
    if let Some(call) = store::call(id) {
        return call.accepted_by.is_none().then_some(call);
    }
    // The kv entry expires at the same moment as the timer, so the timer's data holds the parties.
    let mut parties = parties.splitn(3, ',').map(str::to_owned);
    let kind = if parties.next()? == Kind::Voice.as_str() { Kind::Voice } else { Kind::Video };
    Some(Call { id: id.to_owned(), caller: parties.next()?, callee: parties.next()?, kind, accepted_by: None })
}

fn give_up(call: &Call) -> Result<(), No> {
    if store::call(&call.id).is_some() {
        store::end(call)?;
    }
    for by in [&call.caller, &call.callee] {
        let message = told(action::CANCEL, call, by).with("reason", "timeout");
        outbox::push(Target::user(call.peer_of(by)), message)?;
    }
    Ok(())
}

/// Reason for which a request fails.
enum No {
    /// An error reply to the client.
    Answer(Reply),
    /// A failure of the host.
    Host(String),
}

impl From<kv::Error> for No {
    fn from(error: kv::Error) -> Self {
        Self::Host(format!("kv: {error}"))
    }
}

impl From<timers::Error> for No {
    fn from(error: timers::Error) -> Self {
        Self::Host(format!("timers: {error}"))
    }
}

impl From<outbox::Error> for No {
    fn from(error: outbox::Error) -> Self {
        Self::Host(format!("outbox: {error}"))
    }
}

/// At most [`SHOWN_BYTES`] bytes of a client value, cut at a character boundary.
fn shown(value: &str) -> &str {
    &value[..value.floor_char_boundary(SHOWN_BYTES)]
}

fn no(code: &str, message: impl Into<String>) -> No {
    No::Answer(Reply::new(code, message))
}

type Done = Result<Reply, No>;

impl VideoCall {
    fn invite(&self, who: &Identity, asked: &skylark_plugin::Call) -> Done {
        let callee = asked.get("callee").filter(|uid| !uid.is_empty());
        let callee = callee.ok_or_else(|| no("400", "callee: expected a user, got none"))?;
        if callee.len() > MAX_NAME_BYTES {
            let words = format!("callee: expected at most {MAX_NAME_BYTES} bytes, got {}", callee.len());
            return Err(no("400", words));
        }
        if callee == who.uid {
            return Err(no("400", "callee: expected another user than the caller"));
        }
        let kind = match asked.get("kind") {
            None | Some("" | "video") => Kind::Video,
            Some("voice") => Kind::Voice,
            Some(other) => return Err(no("400", format!("kind: expected voice or video, got {:?}", shown(other)))),
        };
        if !directory::online(callee) {
            return Err(no("404", format!("user {callee} is offline")));
        }
        for _ in 0..TRIES {
            if let Some(own) = store::call_of(&who.uid) {
                return self.invite_again(who, callee, own);
            }
            if let Some(theirs) = store::call_of(callee) {
                // The two look-ups are not atomic: since the first one, the caller may have entered this call.
                if theirs.has(&who.uid) {
                    return self.invite_again(who, callee, theirs);
                }
                return Err(no("409", format!("user {callee} is busy")));
            }
            let nonce = format!("{},{},{}", clock::now(), clock::monotonic(), who.cid);
            let id = self.settings.name_call(&who.uid, callee, &nonce);
            let call = Call { id, caller: who.uid.clone(), callee: callee.to_owned(), kind, accepted_by: None };
            if store::enter(&call, self.settings.ring)? {
                return self.ring(&call);
            }
        }
        Err(No::Host("somebody else was faster three times".to_owned()))
    }

    fn ring(&self, call: &Call) -> Done {
        let action = if call.kind == Kind::Voice { action::VOICE } else { action::VIDEO };
        let seconds = self.settings.ring.to_string();
        let message =
            told(action, call, &call.caller).with("caller", call.caller.as_str()).with("ring", seconds.as_str());
        outbox::push(Target::user(call.callee.as_str()), message)?;
        let parties = format!("{},{},{}", call.kind.as_str(), call.caller, call.callee);
        timers::start(&call.id, u64::from(self.settings.ring) * 1_000, parties)?;
        Ok(state(call, "ringing").with("ring", seconds))
    }

    /// Handles an invitation by a user in an active call.
    fn invite_again(&self, who: &Identity, callee: &str, own: Call) -> Done {
        let rings = own.accepted_by.is_none();
        if rings && own.caller == callee {
            // Both users called each other at once: the later invitation accepts the earlier one.
            return self.join(who, own);
        }
        if rings && own.callee == callee {
            return Ok(state(&own, "ringing").with("ring", self.settings.ring.to_string()));
        }
        Err(No::Answer(Reply::new("409", "the caller is in another call").with("call", own.id)))
    }

    fn accept(&self, who: &Identity, asked: &skylark_plugin::Call) -> Done {
        let call = find(who, asked)?;
        if who.uid != call.callee {
            return Err(no("403", "only the one who is called can accept"));
        }
        match call.accepted_by {
            None => self.join(who, call),
            // A client that lost the reply asks again.
            Some(cid) if cid == who.cid => Ok(self.accepted(&call)),
            Some(_) => Err(no("409", "the call was accepted on another device")),
        }
    }

    fn join(&self, who: &Identity, mut call: Call) -> Done {
        if !directory::online(&call.caller) {
            store::end(&call)?;
            timers::cancel(&call.id)?;
            return Err(no("404", format!("user {} is offline", call.caller)));
        }
        timers::cancel(&call.id)?;
        call.accepted_by = Some(who.cid);
        store::keep(&call, self.settings.talk)?;
        let message = told(action::ACCEPT, &call, &call.callee);
        let address = self.settings.address_of(&call.id, call.kind.as_str());
        outbox::push(Target::user(call.caller.as_str()), message.clone().with("address", address))?;
        quiet_others(who, message)?;
        Ok(self.accepted(&call))
    }

    fn accepted(&self, call: &Call) -> Reply {
        state(call, "accepted").with("address", self.settings.address_of(&call.id, call.kind.as_str()))
    }

    fn reject(who: &Identity, asked: &skylark_plugin::Call) -> Done {
        let call = find(who, asked)?;
        if who.uid != call.callee {
            return Err(no("403", "only the one who is called can reject"));
        }
        if call.accepted_by.is_some() {
            return Err(no("409", "the call was accepted: hang up"));
        }
        let busy = asked.get("reason") == Some("busy");
        finish(who, &call, if busy { action::BUSY } else { action::REJECT }, "rejected")
    }

    fn cancel(who: &Identity, asked: &skylark_plugin::Call) -> Done {
        let call = find(who, asked)?;
        if who.uid != call.caller {
            return Err(no("403", "only the one who calls can cancel"));
        }
        if call.accepted_by.is_some() {
            return Err(no("409", "the call was accepted: hang up"));
        }
        finish(who, &call, action::CANCEL, "cancelled")
    }

    /// Ends a call in any state. While the call rings, the caller cancels it and the callee rejects it.
    fn hang_up(who: &Identity, asked: &skylark_plugin::Call) -> Done {
        let call = find(who, asked)?;
        match call.accepted_by {
            Some(_) => finish(who, &call, action::HANG_UP, "ended"),
            None if who.uid == call.caller => finish(who, &call, action::CANCEL, "cancelled"),
            None => finish(who, &call, action::REJECT, "rejected"),
        }
    }
}

/// The named call, if the user is a party to it.
fn find(who: &Identity, asked: &skylark_plugin::Call) -> Result<Call, No> {
    let id =
        asked.get("call").filter(|id| !id.is_empty()).ok_or_else(|| no("400", "call: expected a call, got none"))?;
    if !settings::is_call_name(id) {
        return Err(no("404", format!("call {:?} does not exist", shown(id))));
    }
    // An entry that expired belongs to a call that is over.
    let call = store::call(id).ok_or_else(|| no("408", "too late: the call is over"))?;
    if call.has(&who.uid) { Ok(call) } else { Err(no("403", "not a party to this call")) }
}

fn finish(who: &Identity, call: &Call, action: &str, how: &str) -> Done {
    store::end(call)?;
    timers::cancel(&call.id)?;
    let message = told(action, call, &who.uid);
    outbox::push(Target::user(call.peer_of(&who.uid)), message.clone())?;
    if call.accepted_by.is_none() && who.uid == call.callee {
        quiet_others(who, message)?;
    }
    Ok(state(call, how))
}

/// Stops the ringing on the other devices of the user.
fn quiet_others(who: &Identity, message: Message) -> Result<(), outbox::Error> {
    let options = outbox::Options { key: None, history: outbox::History::No, no_echo: Some(who.cid) };
    let message = Message { receiver: who.uid.clone(), ..message }.with("elsewhere", "true");
    outbox::push_with(Target::user(who.uid.as_str()), message, Some(options))
}

/// The message about `call` that `by` sends to the other party.
fn told(action: &str, call: &Call, by: &str) -> Message {
    let message = Message::new(action).between(by, call.peer_of(by));
    message.with("call", call.id.as_str()).with("kind", call.kind.as_str())
}

fn state(call: &Call, state: &str) -> Reply {
    Reply::ok().with("call", call.id.as_str()).with("kind", call.kind.as_str()).with("state", state)
}

skylark_plugin::export!(VideoCall: handler, alarms);

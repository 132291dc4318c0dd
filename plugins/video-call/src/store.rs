//! Active calls in the host's kv: `call:<id>` holds a call, `user:<uid>` the id of the call that a user is in.
//!
//! Every entry expires. A user is in at most one call: the user entry is taken by compare-and-swap, so of two
//! concurrent calls one sees the other.

use serde::{Deserialize, Serialize};
use skylark_plugin::kv;

/// One call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Call {
    /// The call's name. It is the kv key and not part of the value.
    #[serde(skip)]
    pub(crate) id: String,
    pub(crate) caller: String,
    pub(crate) callee: String,
    pub(crate) kind: Kind,
    /// The connection that accepted the call; none while the call rings.
    pub(crate) accepted_by: Option<u64>,
}

/// The kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Voice,
    Video,
}

impl Kind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Voice => "voice",
            Self::Video => "video",
        }
    }
}

impl Call {
    /// The other user of the call.
    pub(crate) fn peer_of(&self, uid: &str) -> &str {
        if uid == self.caller { &self.callee } else { &self.caller }
    }

    pub(crate) fn has(&self, uid: &str) -> bool {
        uid == self.caller || uid == self.callee
    }
}

/// A call by its id.
pub(crate) fn call(id: &str) -> Option<Call> {
    let value = kv::get(&call_key(id))?;
    let call: Call = serde_json::from_slice(&value).ok()?;
    Some(Call { id: id.to_owned(), ..call })
}

/// The call that a user is in.
pub(crate) fn call_of(uid: &str) -> Option<Call> {
    let id = String::from_utf8(kv::get(&user_key(uid))?).ok()?;
    call(&id)
}

/// Enters a call for both users. Returns `false`, and enters nothing, if one of them is in a call by now.
pub(crate) fn enter(call: &Call, seconds: u32) -> Result<bool, kv::Error> {
    for (at, uid) in [&call.caller, &call.callee].into_iter().enumerate() {
        // A user entry whose call has ended does not make the user busy.
        let stale = kv::get(&user_key(uid));
        let free = call_of(uid).is_none();
        if !free || !kv::compare_and_swap(&user_key(uid), stale.as_deref(), call.id.as_bytes(), Some(seconds))? {
            if at == 1 {
                kv::delete(&user_key(&call.caller))?;
            }
            return Ok(false);
        }
    }
    save(call, seconds)?;
    Ok(true)
}

/// Keeps a call and the entries of its two users for `seconds` from now.
pub(crate) fn keep(call: &Call, seconds: u32) -> Result<(), kv::Error> {
    for uid in [&call.caller, &call.callee] {
        kv::set(&user_key(uid), call.id.as_bytes(), Some(seconds))?;
    }
    save(call, seconds)
}

/// Ends a call and frees both users.
pub(crate) fn end(call: &Call) -> Result<(), kv::Error> {
    kv::delete(&call_key(&call.id))?;
    for uid in [&call.caller, &call.callee] {
        kv::delete(&user_key(uid))?;
    }
    Ok(())
}

fn save(call: &Call, seconds: u32) -> Result<(), kv::Error> {
    let value = serde_json::to_vec(call).expect("a call is plain data");
    kv::set(&call_key(&call.id), &value, Some(seconds))
}

fn call_key(id: &str) -> String {
    format!("call:{id}")
}

fn user_key(uid: &str) -> String {
    format!("user:{uid}")
}

//! Checks the answers of guests. A fault is blamed on the guest, or on the input that explains it.
//!
//! The caller is to blame for an admission with an invalid user, device or room name, since these come from its
//! credential. It is also to blame for an invalid text or too many entries that it sent itself. The guest is to blame
//! for all other faults.

use std::fmt::Display;
use std::str::FromStr;

use super::bindings::exports::skylark::plugin::{auth, handler};
use super::bindings::skylark::plugin::types;
use super::convert::{self, MAX_MESSAGE_BYTES};
use super::failure::{Failure, Kind};
use crate::code::Code;
use crate::message::{Entries, MAX_ENTRIES, Message};
use crate::plugin::{Admission, Answer, Call};

/// Above this size in bytes a message is near the publish limit, so the additions of a filter may exceed any bound.
const NEARLY_TOO_LARGE: usize = 32 << 10;

/// Checks an admission.
///
/// # Errors
/// A name or the claims are not valid. An empty name is the guest's fault: no credential explains it.
pub(in crate::plugin) fn admission(admission: auth::Admission) -> Result<Admission, Failure> {
    Ok(Admission {
        uid: name("uid", &admission.uid)?,
        device: admission.device.map(|device| name("device", &device)).transpose()?,
        rooms: admission.rooms.iter().map(|room| name("room", room)).collect::<Result<_, _>>()?,
        expires: admission.expires,
        claims: convert::entries_in("claims", admission.claims).map_err(|fault| Failure::new(Kind::Input, fault))?,
    })
}

fn name<T: FromStr<Err: Display>>(field: &str, text: &str) -> Result<T, Failure> {
    let kind = if text.is_empty() { Kind::Answer } else { Kind::Input };
    convert::name(field, text).map_err(|fault| Failure::new(kind, fault))
}

/// Checks a handler's reply to `call`.
///
/// # Errors
/// The code is not three digits, or the data has too many entries.
pub(in crate::plugin) fn reply(reply: handler::Reply, call: &Call) -> Result<Answer, Failure> {
    let Some(code) = Code::parse(&reply.code) else {
        let kind = if is_sent(&reply.code, &call.data) { Kind::Input } else { Kind::Answer };
        let code = convert::cut(reply.code);
        return Err(Failure::new(kind, format!("code: expected three digits, got {code:?}")));
    };
    let kind = blame_entries(&reply.data, &call.data);
    let data = convert::entries_in("data", reply.data).map_err(|fault| Failure::new(kind, fault))?;
    Ok(Answer { code, message: convert::cut(reply.message), data })
}

/// Checks the message with which a filter replaces another one.
///
/// # Errors
/// The message is too large or has too many entries.
pub(in crate::plugin) fn replacement(message: types::Message, before: &Message) -> Result<Message, Failure> {
    let bytes = convert::text_bytes(&message);
    if bytes > MAX_MESSAGE_BYTES {
        let kind = if before.approximate_bytes() > NEARLY_TOO_LARGE { Kind::Input } else { Kind::Answer };
        return Err(Failure::new(kind, format!("message: expected at most {MAX_MESSAGE_BYTES} bytes, got {bytes}")));
    }
    let content = blame_entries(&message.content, &before.content);
    let kind = if message.content.len() > MAX_ENTRIES { content } else { blame_entries(&message.extra, &before.extra) };
    convert::message_in(message).map_err(|fault| Failure::new(kind, fault))
}

/// True if a text of an answer is one that the caller sent, or a part of one.
fn is_sent(text: &str, sent: &Entries) -> bool {
    !text.is_empty() && sent.iter().any(|(key, value)| key.contains(text) || value.contains(text))
}

/// Blame for too many entries: the caller, if the guest itself added no more than the limit.
fn blame_entries(entries: &[types::Entry], sent: &Entries) -> Kind {
    let own = entries.iter().filter(|(key, _)| sent.get(key).is_none()).count();
    if own <= MAX_ENTRIES && own < entries.len() { Kind::Input } else { Kind::Answer }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ConnectionId;

    fn admitted(uid: &str, device: Option<&str>, rooms: &[&str]) -> Result<Admission, (Kind, String)> {
        let told = auth::Admission {
            uid: uid.to_owned(),
            device: device.map(str::to_owned),
            rooms: rooms.iter().map(|&room| room.to_owned()).collect(),
            expires: None,
            claims: Vec::new(),
        };
        admission(told).map_err(|failure| (failure.kind, failure.to_string()))
    }

    #[test]
    fn invalid_name_in_an_admission_is_blamed_on_the_caller() {
        let forbidden =
            |field: &str| (Kind::Input, format!("{field}: expected no comma or control character, got \"a,b\""));
        assert_eq!(admitted("a,b", None, &[]), Err(forbidden("uid")));
        assert_eq!(admitted("a", Some("a,b"), &[]), Err(forbidden("device")));
        assert_eq!(admitted("a", None, &["a,b"]), Err(forbidden("room")));
        let long = admitted(&"x".repeat(129), None, &[]).unwrap_err();
        assert_eq!(long, (Kind::Input, "uid: expected at most 128 bytes, got 129".to_owned()));
        assert_eq!(admitted("", None, &[]).unwrap_err().0, Kind::Answer);
        assert!(admitted("a", Some("d"), &["r"]).is_ok());
    }

    fn replied(code: &str, data: Vec<types::Entry>, sent: Entries) -> Option<Kind> {
        let call = Call {
            key: "k".into(),
            data: sent,
            caller: None,
            cid: ConnectionId::new(1).unwrap(),
            remote: String::new(),
        };
        reply(handler::Reply { code: code.into(), message: String::new(), data }, &call)
            .err()
            .map(|failure| failure.kind)
    }

    fn entries(keys: impl Iterator<Item = usize>) -> Vec<types::Entry> {
        keys.map(|key| (key.to_string(), String::new())).collect()
    }

    #[test]
    fn invalid_code_echoed_from_the_request_is_blamed_on_the_caller() {
        let sent = |entries: Vec<types::Entry>| entries.into_iter().collect::<Entries>();
        assert_eq!(replied("200", Vec::new(), Entries::new()), None);
        assert_eq!(replied("abc", Vec::new(), Entries::new()), Some(Kind::Answer));
        assert_eq!(replied("", Vec::new(), [("a", "b")].into_iter().collect()), Some(Kind::Answer));
        assert_eq!(replied("abc", Vec::new(), [("code", "xabc")].into_iter().collect()), Some(Kind::Input));
        assert_eq!(replied("200", entries(0..257), sent(entries(0..256))), Some(Kind::Input));
        assert_eq!(replied("200", entries(0..257), sent(entries(300..500))), Some(Kind::Answer));
        assert_eq!(replied("200", entries(0..400), sent(entries(0..9))), Some(Kind::Answer));
    }

    #[test]
    fn message_too_large_before_the_filter_is_blamed_on_the_caller() {
        let message = |bytes: usize| Message { title: "x".repeat(bytes), ..Message::default() };
        let replaced = |bytes: usize, before: usize| {
            let after = convert::message_out(&message(bytes));
            replacement(after, &message(before)).err().map(|failure| failure.kind)
        };
        assert_eq!(replaced(100, 100), None);
        assert_eq!(replaced(MAX_MESSAGE_BYTES + 1, 100), Some(Kind::Answer));
        assert_eq!(replaced(MAX_MESSAGE_BYTES + 1, 60_000), Some(Kind::Input));
    }
}

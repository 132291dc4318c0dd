//! Converts between the records of `wit/` and Skylark's own. Every value from a guest is checked here.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use super::bindings::exports::skylark::plugin as exports;
use super::bindings::skylark::plugin::{directory, history, outbox, types};
use crate::code::Code;
use crate::id::{ConnectionId, Device, Room, Uid};
use crate::message::{Entries, MAX_ENTRIES, Message, Origin, Position, Publication, Retention, StreamName, Target};
use crate::plugin::history::{HistoryMessage, HistoryPage, Missing};
use crate::plugin::{Call, Claim, Event, Identity, Presence, Refusal, ResumedStream, Transport, UndeliveredCause};

/// Longest reason or reply text of a guest in bytes; the rest is cut.
const MAX_WORDS: usize = 1_024;

/// Most bytes of text in a message from a guest. The publish path has its own limit.
pub(in crate::plugin) const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Parses a name; the error names the field.
pub(in crate::plugin) fn name<T: FromStr<Err: Display>>(field: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("{field}: {error}"))
}

pub(in crate::plugin) fn entries_out(entries: &Entries) -> Vec<types::Entry> {
    entries.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

pub(in crate::plugin) fn entries_in(field: &str, entries: Vec<types::Entry>) -> Result<Entries, String> {
    if entries.len() > MAX_ENTRIES {
        return Err(format!("{field}: expected at most {MAX_ENTRIES} entries, got {}", entries.len()));
    }
    Ok(entries.into_iter().collect())
}

pub(in crate::plugin) fn message_out(message: &Message) -> types::Message {
    types::Message {
        id: message.id,
        action: message.action.clone(),
        content: entries_out(&message.content),
        sender: message.sender.clone(),
        receiver: message.receiver.clone(),
        extra: entries_out(&message.extra),
        title: message.title.clone(),
        image: message.image.clone(),
        format: message.format.clone(),
        timestamp: message.timestamp,
    }
}

pub(in crate::plugin) fn message_in(message: types::Message) -> Result<Message, String> {
    Ok(Message {
        id: message.id,
        action: message.action,
        content: entries_in("content", message.content)?,
        sender: message.sender,
        receiver: message.receiver,
        extra: entries_in("extra", message.extra)?,
        title: message.title,
        image: message.image,
        format: message.format,
        timestamp: message.timestamp,
    })
}

/// Bytes of all texts of a message.
pub(in crate::plugin) fn text_bytes(message: &types::Message) -> usize {
    let entries = message.content.iter().chain(&message.extra);
    let fields = [&message.action, &message.sender, &message.receiver, &message.title, &message.image, &message.format];
    fields.iter().map(|text| text.len()).sum::<usize>()
        + entries.map(|(key, value)| key.len() + value.len()).sum::<usize>()
}

/// Cost of a text for the node besides its bytes, so that a million empty texts are not free.
const TEXT_BYTES: usize = 32;

/// Cost of a message that a guest hands over.
pub(in crate::plugin) fn message_cost(message: &types::Message) -> usize {
    text_bytes(message) + 2 * TEXT_BYTES * (message.content.len() + message.extra.len())
}

/// Cost of a target that a guest hands over.
pub(in crate::plugin) fn target_cost(target: &types::Target) -> usize {
    match target {
        types::Target::Connection(_) | types::Target::Everyone => 0,
        types::Target::Device(device) => device.uid.len() + device.device.len(),
        types::Target::User(text) | types::Target::Room(text) => text.len(),
        types::Target::Users(users) | types::Target::EveryoneBut(users) => {
            users.iter().map(|uid| uid.len() + TEXT_BYTES).sum()
        }
    }
}

pub(in crate::plugin) fn target(target: types::Target) -> Result<Target, String> {
    let users = |users: Vec<String>| -> Result<Arc<[Uid]>, String> {
        users.iter().map(|uid| name("target: uid", uid)).collect()
    };
    Ok(match target {
        types::Target::Connection(number) => Target::Connection(connection("target: cid", number)?),
        types::Target::Device(of) => {
            Target::Device(name("target: uid", &of.uid)?, name::<Device>("target: device", &of.device)?)
        }
        types::Target::User(uid) => Target::User(name("target: uid", &uid)?),
        types::Target::Users(uids) => Target::Users(users(uids)?),
        types::Target::Room(room) => Target::Room(name::<Room>("target: room", &room)?),
        types::Target::Everyone => Target::Everyone,
        types::Target::EveryoneBut(uids) => Target::EveryoneBut(users(uids)?),
    })
}

fn connection(field: &str, number: u64) -> Result<ConnectionId, String> {
    ConnectionId::new(number).ok_or_else(|| format!("{field}: expected 1 to 2^53 - 1, got {number}"))
}

/// The users that a target names.
pub(in crate::plugin) fn named_users(target: &Target) -> &[Uid] {
    match target {
        Target::Device(uid, _) | Target::ConnectionOf(uid, _) | Target::User(uid) => std::slice::from_ref(uid),
        Target::Users(uids) | Target::EveryoneBut(uids) => uids,
        Target::Connection(_) | Target::Room(_) | Target::Everyone => &[],
    }
}

/// A plugin's push.
pub(in crate::plugin) fn publication(
    to: types::Target,
    message: types::Message,
    options: Option<outbox::Options>,
    (hops, plugin): (u8, &Arc<str>),
) -> Result<Publication, String> {
    let options = options.unwrap_or(outbox::Options { key: None, history: outbox::History::Configured, no_echo: None });
    Ok(Publication {
        no_echo: options.no_echo.map(|number| connection("no-echo", number)).transpose()?,
        hops,
        back_end: Some(Arc::clone(plugin)),
        key: options.key.map(Into::into),
        history: match options.history {
            outbox::History::Configured => Retention::Configured,
            outbox::History::No => Retention::No,
            outbox::History::Ttl(seconds) => Retention::Ttl(seconds),
        },
        ..Publication::new(message_in(message)?, target(to)?, Origin::Plugin)
    })
}

pub(in crate::plugin) fn origin(origin: Origin) -> types::Origin {
    match origin {
        Origin::Client => types::Origin::Client,
        Origin::Http => types::Origin::Http,
        Origin::Broker => types::Origin::Broker,
        Origin::Plugin => types::Origin::Plugin,
    }
}

pub(in crate::plugin) fn identity(identity: &Identity) -> types::Identity {
    types::Identity {
        uid: identity.uid.as_str().to_owned(),
        cid: identity.cid.as_u64(),
        device: identity.device.as_ref().map(|device| device.as_str().to_owned()),
        channel: identity.channel.clone(),
    }
}

pub(in crate::plugin) fn presence(presence: Presence) -> directory::Presence {
    directory::Presence {
        cid: presence.cid.as_u64(),
        device: presence.device.map(|device| device.as_str().to_owned()),
        channel: presence.channel,
        rooms: presence.rooms.iter().map(|room| room.as_str().to_owned()).collect(),
    }
}

pub(in crate::plugin) fn history_page(page: HistoryPage) -> history::Page {
    let HistoryPage { messages, top, missed } = page;
    history::Page {
        messages: messages.into_iter().map(kept_message).collect(),
        top: stream_position(&top),
        missed: missed.map(|missing| match missing {
            Missing::Trimmed => history::Missed::Trimmed,
            Missing::Epoch => history::Missed::Epoch,
            Missing::Fork => history::Missed::Fork,
        }),
    }
}

fn kept_message(kept: HistoryMessage) -> history::KeptMessage {
    history::KeptMessage {
        offset: kept.offset,
        message: message_out(&kept.message),
        device: kept.device.map(|device| device.as_str().to_owned()),
        except: kept.except.iter().map(|uid| uid.as_str().to_owned()).collect(),
    }
}

pub(in crate::plugin) fn stream_position(position: &Position) -> history::StreamPosition {
    history::StreamPosition { epoch: position.epoch.as_str().to_owned(), offset: position.offset, id: position.id }
}

pub(in crate::plugin) fn transport(transport: &Transport) -> exports::auth::Transport {
    exports::auth::Transport {
        listener: transport.listener.to_owned(),
        remote: transport.remote.clone(),
        path: transport.path.clone(),
        origin: transport.origin.clone(),
        user_agent: transport.user_agent.clone(),
        bound: transport.bound.as_ref().map(|uid| uid.as_str().to_owned()),
    }
}

pub(in crate::plugin) fn claim(claim: &Claim) -> exports::auth::Claim {
    exports::auth::Claim {
        token: claim.token.clone(),
        uid: claim.uid.clone(),
        device: claim.device.clone(),
        channel: claim.channel.clone(),
        data: entries_out(&claim.data),
    }
}

/// A guest's refusal: its code if that is valid, else `default`, and its reason cut to the limit.
pub(in crate::plugin) fn refusal(refusal: types::Refusal, default: Code) -> Refusal {
    Refusal::new(Code::parse(&refusal.code).unwrap_or(default), cut(refusal.reason))
}

/// At most [`MAX_WORDS`] bytes of a text.
pub(in crate::plugin) fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_WORDS));
    text
}

pub(in crate::plugin) fn call(call: &Call) -> exports::handler::Call {
    exports::handler::Call {
        key: call.key.clone(),
        data: entries_out(&call.data),
        caller: call.caller.as_ref().map(identity),
        cid: call.cid.as_u64(),
    }
}

/// An event of the role `events`; `None` if the export `receipts` gets it.
pub(in crate::plugin) fn event(event: &Event) -> Option<exports::events::Event> {
    use exports::events::Event as Out;
    let change = |who: &Identity, room: &Room| exports::events::RoomChange {
        who: identity(who),
        room: room.as_str().to_owned(),
    };
    Some(match event {
        Event::Online(who) => Out::Online(identity(who)),
        Event::Offline(who) => Out::Offline(identity(who)),
        Event::RoomJoined(who, room) => Out::RoomJoined(change(who, room)),
        Event::RoomLeft(who, room) => Out::RoomLeft(change(who, room)),
        Event::Resumed(..) | Event::Undelivered(..) => return None,
    })
}

pub(in crate::plugin) fn resumed_streams(streams: &[ResumedStream]) -> Vec<exports::receipts::ResumedStream> {
    let name = |name: &StreamName| match name {
        StreamName::User(uid) => types::StreamName::User(uid.as_str().to_owned()),
        StreamName::Room(room) => types::StreamName::Room(room.as_str().to_owned()),
        StreamName::Everyone => types::StreamName::Everyone,
    };
    let stream = |stream: &ResumedStream| exports::receipts::ResumedStream {
        name: name(&stream.name),
        recovered: stream.recovered,
        count: stream.count,
    };
    streams.iter().map(stream).collect()
}

pub(in crate::plugin) fn cause(cause: UndeliveredCause) -> exports::receipts::Cause {
    match cause {
        UndeliveredCause::Offline => exports::receipts::Cause::Offline,
        UndeliveredCause::Unacknowledged => exports::receipts::Cause::Unacknowledged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_of_a_guest_is_converted() {
        use types::Target as From;
        let uid = |text: &str| Uid::parse(text).unwrap();
        let texts = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let device = |uid: &str, device: &str| types::DeviceOf { uid: uid.into(), device: device.into() };
        let both: Arc<[Uid]> = [uid("a"), uid("b")].into();
        for (from, to) in [
            (From::Connection(7), Target::Connection(ConnectionId::new(7).unwrap())),
            (From::Device(device("a", "phone")), Target::Device(uid("a"), Device::parse("phone").unwrap())),
            (From::User("a".into()), Target::User(uid("a"))),
            (From::Users(texts(&["a", "b"])), Target::Users(Arc::clone(&both))),
            (From::Room("r".into()), Target::Room(Room::parse("r").unwrap())),
            (From::Everyone, Target::Everyone),
            (From::EveryoneBut(texts(&["a", "b"])), Target::EveryoneBut(both)),
        ] {
            assert_eq!(target(from), Ok(to));
        }
        for (from, field) in [
            (From::Connection(0), "target: cid"),
            (From::Device(device("", "phone")), "target: uid"),
            (From::Device(device("a", "")), "target: device"),
            (From::User("a,b".into()), "target: uid"),
            (From::Users(texts(&["a", ""])), "target: uid"),
            (From::Room(String::new()), "target: room"),
            (From::EveryoneBut(texts(&[""])), "target: uid"),
        ] {
            assert!(target(from).is_err_and(|why| why.starts_with(field)), "{field}");
        }
    }
}

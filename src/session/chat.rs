//! A client's `message` to a user or a room: allowed fields and the reply.
//!
//! The publisher's own connection gets no copy. Other connections of the same user get one if the target includes them:
//! they are in the room, or the message is to that user.

use super::{Action, ClientMessage, invalid, optional, reply, required};
use crate::claim::Refusal;
use crate::code::Code;
use crate::fate::{Fate, Published};
use crate::id::{MAX_SAFE_INTEGER, Room, Uid};
use crate::message::{Entries, KICK_ACTION, Message, Position, Receipt, Target};
use crate::protocol::push::{FieldFault, content_of, extra_of};

/// Action of a message without one.
const DEFAULT_ACTION: &str = "chat";

pub(super) fn parse(data: &Entries, sender: &Uid) -> Result<ClientMessage, Refusal> {
    let (target, receiver) = target(required(data, "to")?)?;
    let action = optional(data, "action").unwrap_or(DEFAULT_ACTION);
    // A client that could send this action could end another client's session.
    if action == KICK_ACTION {
        return Err(Refusal::new(Code::FORBIDDEN, format!("action: {KICK_ACTION} is reserved for the node")));
    }
    let refused = |fault: FieldFault| invalid(fault.to_string());
    let text = |field| optional(data, field).unwrap_or_default().to_owned();
    let message = Message {
        id: id(optional(data, "id"))?,
        action: action.to_owned(),
        content: content_of(optional(data, "content").unwrap_or_default()).map_err(refused)?,
        sender: sender.to_string(),
        receiver,
        extra: extra_of(optional(data, "extra").unwrap_or_default()).map_err(refused)?,
        title: text("title"),
        image: text("image"),
        format: text("format"),
        timestamp: 0,
    };
    Ok(ClientMessage { message, target })
}

pub(super) fn answer(Published { id, fate, .. }: Published, now: i64) -> Action {
    let mut data = Entries::new();
    let code = fate.code();
    let message = match fate {
        Fate::Accepted { receipt, positions, .. } => {
            data.insert("id", id.to_string());
            if let Some(Receipt { delivered, offline, .. }) = receipt {
                data.insert("delivered", delivered.to_string());
                if !offline.is_empty() {
                    data.insert("offline", offline.iter().map(Uid::as_str).collect::<Vec<_>>().join(","));
                }
            }
            if let [Position { epoch, offset, .. }] = &positions[..] {
                data.insert("offset", offset.to_string());
                data.insert("epoch", epoch.as_str());
            }
            String::new()
        }
        Fate::Dropped { .. } => {
            data.insert("id", id.to_string());
            data.insert("delivered", "0");
            fate.to_string()
        }
        Fate::Rejected { refusal, .. } => refusal.reason,
        failure => format!("message: {failure}"),
    };
    reply("message", code, message, data, now)
}

fn target(to: &str) -> Result<(Target, String), Refusal> {
    let wrong = |e| invalid(format!("to: {e}"));
    match to.split_once(':') {
        Some(("user", uid)) => Ok((Target::User(Uid::parse(uid).map_err(wrong)?), uid.to_owned())),
        Some(("room", room)) => Ok((Target::Room(Room::parse(room).map_err(wrong)?), room.to_owned())),
        _ => Err(invalid(format!("to: expected user:<uid> or room:<name>, got {:?}", super::shortened(to)))),
    }
}

fn id(text: Option<&str>) -> Result<i64, Refusal> {
    let Some(text) = text else { return Ok(0) };
    text.parse::<u64>().ok().filter(|id| *id <= MAX_SAFE_INTEGER).and_then(|id| i64::try_from(id).ok()).ok_or_else(
        || {
            let got = super::shortened(text);
            invalid(format!("id: expected a whole number from 0 to {MAX_SAFE_INTEGER}, got {got:?}"))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Epoch;

    #[test]
    fn reply_to_kept_message_has_its_position() {
        let position = |offset| Position { epoch: Epoch::parse("k3v9x0ab").unwrap(), offset, id: 9 };
        let told = |positions| {
            let fate =
                Fate::Accepted { positions, is_unkept: false, receipt: None, nodes: None, unknown_nodes: Vec::new() };
            match answer(Published { id: 9, replaced_by: Vec::new(), fate }, 0) {
                Action::Reply(reply) => reply.data,
                other => panic!("{other:?}"),
            }
        };
        let id = ("id", "9");
        assert_eq!(told(Vec::new()), [id].into_iter().collect());
        let kept = [id, ("offset", "41"), ("epoch", "k3v9x0ab")].into_iter().collect();
        assert_eq!(told(vec![position(41)]), kept);
        assert_eq!(told(vec![position(41), position(42)]), [id].into_iter().collect(), "a list of users");
    }
}

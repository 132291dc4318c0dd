//! Kept messages that no connection of a user accepted: tells the plugins with the export `receipts`.
//!
//! Only the publishing node tells it, and only if the engine reports that no node has such a connection. Messages that
//! some node sent to a device are not covered: a device that does not acknowledge them is another case.

use crate::fate::Fate;
use crate::id::Uid;
use crate::message::{Envelope, Target};
use crate::plugin::{Event, PluginHost, UndeliveredCause};

/// Queues one event for each user that a kept message of the batch did not reach.
pub(super) fn report(plugins: &dyn PluginHost, batch: &[Envelope], fates: &[Fate]) {
    for (envelope, fate) in batch.iter().zip(fates) {
        for uid in unreached(&envelope.target, fate) {
            let event = Event::Undelivered(uid.clone(), envelope.message.id, UndeliveredCause::Offline);
            plugins.notify(event, envelope.hops);
        }
    }
}

/// Users of the target that no connection received a kept message for. A message without a position is not kept.
fn unreached<'a>(target: &'a Target, fate: &'a Fate) -> &'a [Uid] {
    let Fate::Accepted { positions, receipt, nodes, .. } = fate else { return &[] };
    let named = match target {
        Target::User(uid) | Target::Device(uid, _) => std::slice::from_ref(uid),
        Target::Users(uids) => &**uids,
        Target::Connection(_)
        | Target::ConnectionOf(..)
        | Target::Room(_)
        | Target::Everyone
        | Target::EveryoneBut(_) => &[],
    };
    match (receipt, nodes) {
        _ if positions.is_empty() => &[],
        // Also if each queue was full: the connections are closed without the message.
        (Some(receipt), _) if receipt.delivered == 0 => named,
        (Some(receipt), _) if matches!(target, Target::Users(_)) => &receipt.offline,
        (None, Some(0)) => named,
        (Some(_) | None, _) => &[],
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::id::{Device, Room};
    use crate::message::{Epoch, Message, Origin, Position, Publication, Receipt};
    use crate::node::fake::Scripted;

    fn uid(name: &str) -> Uid {
        Uid::parse(name).unwrap()
    }

    fn accepted(receipt: Option<(u32, &[&str])>, nodes: Option<u32>, is_kept: bool) -> Fate {
        let position = Position { epoch: Epoch::new(1), offset: 1, id: 7 };
        let receipt = receipt.map(|(delivered, offline)| Receipt {
            delivered,
            full: 0,
            offline: offline.iter().map(|name| uid(name)).collect(),
        });
        Fate::Accepted {
            positions: vec![position; usize::from(is_kept)],
            is_unkept: false,
            receipt,
            nodes,
            unknown_nodes: Vec::new(),
        }
    }

    fn names(target: &Target, fate: &Fate) -> Vec<String> {
        unreached(target, fate).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn user_without_a_connection_lacks_a_kept_message() {
        let device = Target::Device(uid("a"), Device::parse("phone").unwrap());
        for target in [Target::User(uid("a")), device] {
            assert_eq!(names(&target, &accepted(Some((0, &["a"])), Some(1), true)), ["a"]);
            assert_eq!(names(&target, &accepted(Some((0, &[])), Some(1), true)), ["a"], "each queue was full");
            assert_eq!(names(&target, &accepted(None, Some(0), true)), ["a"], "no node has the user");
            assert!(names(&target, &accepted(Some((1, &[])), Some(1), true)).is_empty());
            assert!(names(&target, &accepted(None, Some(1), true)).is_empty());
            assert!(names(&target, &accepted(None, None, true)).is_empty());
            assert!(names(&target, &accepted(Some((0, &["a"])), Some(1), false)).is_empty(), "it is not kept");
            assert!(names(&target, &Fate::Unavailable).is_empty());
        }
    }

    #[test]
    fn users_of_a_list_lack_it_one_by_one() {
        let target = Target::Users([uid("a"), uid("b"), uid("c")].into());
        assert_eq!(names(&target, &accepted(Some((1, &["a", "c"])), Some(1), true)), ["a", "c"]);
        assert_eq!(names(&target, &accepted(None, Some(0), true)), ["a", "b", "c"]);
        assert!(names(&target, &accepted(None, Some(2), true)).is_empty());
    }

    #[test]
    fn rooms_and_everyone_lack_nothing() {
        for target in [Target::Room(Room::parse("lobby").unwrap()), Target::Everyone] {
            assert!(names(&target, &accepted(Some((0, &[])), Some(1), true)).is_empty());
        }
    }

    #[test]
    fn each_user_and_message_is_one_event() {
        let script = Arc::new(Scripted::default());
        let envelope = |id| {
            let message = Message { id, ..Message::default() };
            Publication::new(message, Target::User(uid("a")), Origin::Http).into_envelope(1, 0)
        };
        let fates = [accepted(Some((0, &["a"])), Some(1), true), accepted(Some((1, &[])), Some(1), true)];
        report(&*script, &[envelope(7), envelope(8)], &fates);
        assert_eq!(script.events(), [Event::Undelivered(uid("a"), 7, UndeliveredCause::Offline)]);
    }
}

//! Retention of messages: the one decision about each message, after the plugins and before the broker.
//!
//! The decision of the publisher comes first, then the first matching rule of `history.rules`, then the settings of the
//! stream. Engines read only the result.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;

use crate::config::{History, HistoryRule, Keep};
use crate::id::Uid;
use crate::message::{Envelope, Retention, Target};

/// Decides the retention of messages.
pub(super) struct RetentionPolicy(Option<History>);

impl RetentionPolicy {
    /// `history` is `None` on a node without a history, which leaves messages as they are.
    pub(super) fn new(history: Option<History>) -> Self {
        Self(history)
    }

    /// Sets the retention of the envelope. Removes repeated users of a kept list: each user's stream gets one copy.
    pub(super) fn decide(&self, envelope: &mut Envelope) {
        let Some(history) = &self.0 else { return };
        envelope.history = retention(history, envelope);
        if envelope.history != Retention::No
            && let Target::Users(uids) = &envelope.target
            && let Some(uids) = without_repeats(uids)
        {
            envelope.target = Target::Users(uids);
        }
    }
}

fn retention(history: &History, envelope: &Envelope) -> Retention {
    let has_stream = !matches!(envelope.target, Target::Connection(_) | Target::ConnectionOf(..));
    if !has_stream || !envelope.nodes.is_empty() {
        return Retention::No;
    }
    let room = match &envelope.target {
        Target::Room(room) => Some(room),
        _ => None,
    };
    let chosen = match envelope.history {
        Retention::Configured => history.rule(&envelope.message.action, room).map_or(Retention::Configured, of_rule),
        given => given,
    };
    match chosen {
        Retention::Ttl(seconds) => Retention::Ttl(seconds.min(whole_seconds(history.ttl_max))),
        other => other,
    }
}

/// Retention by a rule. The bounds of a rule with a room belong to the stream, see [`History::bounds`].
fn of_rule(rule: &HistoryRule) -> Retention {
    match &rule.keep {
        Keep::No => Retention::No,
        Keep::Within(bounds) if rule.action.is_some() => {
            bounds.ttl.map_or(Retention::Configured, |ttl| Retention::Ttl(whole_seconds(ttl)))
        }
        Keep::Within(_) | Keep::Yes => Retention::Configured,
    }
}

fn whole_seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

/// The list with each user once, in order; `None` if it repeats none.
fn without_repeats(uids: &[Uid]) -> Option<Arc<[Uid]>> {
    let mut seen = HashSet::with_capacity_and_hasher(uids.len(), RandomState::new());
    if uids.iter().all(|uid| seen.insert(uid.as_str())) {
        return None;
    }
    seen.clear();
    Some(uids.iter().filter(|uid| seen.insert(uid.as_str())).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BusKind, RuleBounds};
    use crate::id::{ConnectionId, Device, NodeId, Room};
    use crate::message::{Message, Origin, Publication};

    const HOUR: u32 = 3_600;

    fn uid(name: &str) -> Uid {
        Uid::parse(name).unwrap()
    }

    fn room(name: &str) -> Target {
        Target::Room(Room::parse(name).unwrap())
    }

    fn users(names: &[&str]) -> Target {
        Target::Users(names.iter().map(|name| uid(name)).collect())
    }

    fn envelope(action: &str, target: Target) -> Envelope {
        let message = Message { action: action.to_owned(), ..Message::default() };
        Publication::new(message, target, Origin::Http).into_envelope(1, 0)
    }

    fn rule(action: Option<&str>, room: Option<&str>, keep: Keep) -> HistoryRule {
        HistoryRule { action: action.map(str::to_owned), room: room.map(str::to_owned), keep, latest: false }
    }

    fn within(size: Option<usize>, ttl: Option<u32>) -> Keep {
        Keep::Within(RuleBounds { size, ttl: ttl.map(|ttl| Duration::from_secs(ttl.into())), bytes: None })
    }

    /// The retention of an envelope under these rules.
    fn decided(rules: &[HistoryRule], mut envelope: Envelope) -> Retention {
        let history = History { rules: rules.to_vec(), ..History::default() };
        assert!(history.is_on(&BusKind::Memory));
        RetentionPolicy::new(Some(history)).decide(&mut envelope);
        envelope.history
    }

    #[test]
    fn message_without_a_rule_is_kept_as_configured() {
        let device = Target::Device(uid("a"), Device::parse("phone").unwrap());
        let all_but = Target::EveryoneBut([uid("a")].into());
        for target in [Target::User(uid("a")), device, users(&["a", "b"]), room("lobby"), Target::Everyone, all_but] {
            assert_eq!(decided(&[], envelope("chat", target)), Retention::Configured);
        }
    }

    #[test]
    fn message_without_a_stream_is_not_kept() {
        let cid = ConnectionId::new(1).unwrap();
        for target in [Target::Connection(cid), Target::ConnectionOf(uid("a"), cid)] {
            let asked = Envelope { history: Retention::Ttl(HOUR), ..envelope("chat", target) };
            assert_eq!(decided(&[], asked), Retention::No);
        }
        let of_one_node = Envelope { nodes: [NodeId::parse("n1").unwrap()].into(), ..envelope("chat", room("lobby")) };
        assert_eq!(decided(&[], of_one_node), Retention::No);
    }

    #[test]
    fn first_matching_rule_decides() {
        let rules = [
            rule(Some("typing"), None, Keep::No),
            rule(Some("chat"), None, Keep::Yes),
            rule(None, Some("score-*"), within(Some(1), Some(HOUR))),
            rule(None, Some("*"), Keep::No),
            rule(Some("alarm"), None, within(None, Some(60))),
            rule(Some("news"), None, within(None, None)),
        ];
        let of = |action: &str, target: Target| decided(&rules, envelope(action, target));
        assert_eq!(of("typing", Target::User(uid("a"))), Retention::No);
        assert_eq!(of("typing", room("score-1")), Retention::No);
        assert_eq!(of("chat", room("lobby")), Retention::Configured);
        assert_eq!(of("goal", room("score-1")), Retention::Configured, "its bounds belong to the stream");
        assert_eq!(of("goal", room("lobby")), Retention::No);
        assert_eq!(of("alarm", room("lobby")), Retention::No);
        assert_eq!(of("alarm", Target::Everyone), Retention::Ttl(60));
        assert_eq!(of("news", Target::Everyone), Retention::Configured);
    }

    #[test]
    fn publisher_decides_before_the_rules() {
        let rules = [rule(Some("typing"), None, Keep::No), rule(Some("chat"), None, Keep::Yes)];
        let of = |action: &str, history: Retention| {
            decided(&rules, Envelope { history, ..envelope(action, Target::User(uid("a"))) })
        };
        assert_eq!(of("typing", Retention::Ttl(HOUR)), Retention::Ttl(HOUR));
        assert_eq!(of("chat", Retention::No), Retention::No);
        assert_eq!(of("chat", Retention::Ttl(u32::MAX)), Retention::Ttl(7 * 24 * HOUR), "at most history.ttl_max");
    }

    #[test]
    fn kept_list_names_each_user_once() {
        let policy = RetentionPolicy::new(Some(History::default()));
        let after = |target: Target, history: Retention| {
            let mut envelope = Envelope { history, ..envelope("chat", target) };
            policy.decide(&mut envelope);
            envelope.target
        };
        assert_eq!(after(users(&["b", "a", "b", "a"]), Retention::Configured), users(&["b", "a"]));
        assert_eq!(after(users(&["b", "b"]), Retention::No), users(&["b", "b"]));
        let list: Arc<[Uid]> = [uid("a"), uid("b")].into();
        let Target::Users(same) = after(Target::Users(list.clone()), Retention::Ttl(1)) else { panic!("a list") };
        assert!(Arc::ptr_eq(&list, &same), "a list without repeats is not copied");
    }

    #[test]
    fn node_without_a_history_changes_nothing() {
        let cid = ConnectionId::new(1).unwrap();
        for target in [Target::Connection(cid), users(&["b", "b"]), room("lobby")] {
            for history in [Retention::Configured, Retention::No, Retention::Ttl(u32::MAX)] {
                let before = Envelope { history, ..envelope("chat", target.clone()) };
                let mut after = before.clone();
                RetentionPolicy::new(None).decide(&mut after);
                assert_eq!(after, before);
            }
        }
    }
}

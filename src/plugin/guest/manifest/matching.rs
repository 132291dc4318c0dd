//! Match rules: the publishes, keys and rooms that a plugin wants to see. They are evaluated natively, so that a
//! message no plugin wants never enters a guest.

use std::fmt;

use crate::message::{Envelope, Origin, Target};

/// Match rules of a plugin. An empty list matches everything; several lists must all match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::plugin) struct Rules {
    /// Actions of messages.
    pub(in crate::plugin) actions: Vec<Pattern>,
    /// Rooms that a publish goes to, that an event is about, or that a client asks to join.
    pub(in crate::plugin) rooms: Vec<Pattern>,
    /// Keys of a handler: of its own keys, it gets those that match.
    pub(in crate::plugin) keys: Vec<Pattern>,
    /// Origins of a publish.
    pub(in crate::plugin) origins: Vec<Origin>,
}

impl Rules {
    /// True if a filter with these rules judges `envelope`.
    #[must_use]
    pub(in crate::plugin) fn wants(&self, envelope: &Envelope) -> bool {
        (self.origins.is_empty() || self.origins.contains(&envelope.origin))
            && any(&self.actions, &envelope.message.action)
            && match &envelope.target {
                _ if self.rooms.is_empty() => true,
                Target::Room(room) => any(&self.rooms, room.as_str()),
                _ => false,
            }
    }

    /// True if an events or access plugin with these rules sees a change in `room`; `None` is a change outside of
    /// rooms.
    #[must_use]
    pub(in crate::plugin) fn wants_room(&self, room: Option<&str>) -> bool {
        room.is_none_or(|room| any(&self.rooms, room))
    }

    /// True if a handler with these rules gets `key`.
    #[must_use]
    pub(in crate::plugin) fn wants_key(&self, key: &str) -> bool {
        any(&self.keys, key)
    }
}

/// An exact text, or with `*` at its end every text with that prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::plugin) enum Pattern {
    /// This text.
    Exact(Box<str>),
    /// Every text with this prefix.
    Prefix(Box<str>),
}

impl Pattern {
    /// Parses a pattern of a manifest.
    #[must_use]
    pub(in crate::plugin) fn parse(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(prefix) => Self::Prefix(prefix.into()),
            None => Self::Exact(text.into()),
        }
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *text,
            Self::Prefix(prefix) => text.starts_with(&**prefix),
        }
    }
}

/// In the form in which it was parsed.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => f.write_str(text),
            Self::Prefix(text) => write!(f, "{text}*"),
        }
    }
}

fn any(patterns: &[Pattern], text: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Room;
    use crate::message::{Message, Publication};

    fn envelope(action: &str, target: Target) -> Envelope {
        let message = Message { action: action.to_owned(), ..Message::default() };
        Publication::new(message, target, Origin::Http).into_envelope(1, 0)
    }

    #[test]
    fn every_list_that_is_not_empty_must_match() {
        let mut rules = Rules::default();
        let lobby = envelope("chat.text", Target::Room(Room::parse("lobby").unwrap()));
        let all = envelope("chat.text", Target::Everyone);
        assert!(rules.wants(&lobby) && rules.wants(&all));
        rules.actions = vec![Pattern::parse("900"), Pattern::parse("chat.*")];
        assert!(rules.wants(&all) && !rules.wants(&envelope("901", Target::Everyone)));
        rules.rooms = vec![Pattern::parse("lobby")];
        assert!(rules.wants(&lobby) && !rules.wants(&all));
        rules.origins = vec![Origin::Client];
        assert!(!rules.wants(&lobby));
        assert!(rules.wants_room(None) && rules.wants_room(Some("lobby")) && !rules.wants_room(Some("lobby2")));
    }
}

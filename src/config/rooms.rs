//! `clients.open_rooms`, parsed once per configuration.

use std::collections::HashSet;

use super::read::value::Value;
use super::read::{Reader, Setting};
use crate::id::Room;

/// Rooms that every bound client may join: names, and prefixes that end with `*`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct OpenRooms {
    patterns: Vec<String>,
    names: HashSet<String>,
    prefixes: Vec<String>,
}

impl OpenRooms {
    /// Parses names and prefixes.
    #[must_use]
    pub fn new(patterns: Vec<String>) -> Self {
        let mut open = Self::default();
        for pattern in &patterns {
            match pattern.strip_suffix('*') {
                Some(prefix) => open.prefixes.push(prefix.to_owned()),
                None => drop(open.names.insert(pattern.clone())),
            }
        }
        Self { patterns, ..open }
    }

    /// The names and prefixes as configured.
    #[must_use]
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// True if this room is open.
    #[must_use]
    pub fn has(&self, room: &Room) -> bool {
        let room = room.as_str();
        self.names.contains(room) || self.prefixes.iter().any(|prefix| room.starts_with(prefix.as_str()))
    }
}

impl Setting for OpenRooms {
    fn expected() -> String {
        Vec::<String>::expected()
    }

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        Vec::read(value, reader).map(Self::new)
    }

    fn show(&self) -> Value {
        self.patterns.show()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_is_open_by_its_name_or_a_prefix() {
        let patterns = |texts: &[&str]| OpenRooms::new(texts.iter().map(|text| (*text).to_owned()).collect());
        let room = |text: &str| Room::parse(text).unwrap();
        let open = patterns(&["lobby", "public:*"]);
        for (name, is_open) in
            [("lobby", true), ("lobby2", false), ("public:", true), ("public:a", true), ("publi", false)]
        {
            assert_eq!(open.has(&room(name)), is_open, "{name}");
        }
        assert!(patterns(&["*"]).has(&room("anything")) && !patterns(&[]).has(&room("anything")));
    }
}

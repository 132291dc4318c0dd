//! Events plugin that logs each event, and commits a fault when the user's name is the name of one (`faults::NAMES`).
//!
//! `announce` in its settings names a room; each event is pushed to the room as a message of action `event`.

use skylark_plugin::{Event, Events, Message, Plugin, Target, log, outbox};

#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Faulty {
    announce: Option<String>,
}

impl Plugin for Faulty {
    type Settings = Self;

    fn start(settings: Self) -> Result<Self, String> {
        Ok(settings)
    }
}

impl Events for Faulty {
    fn on_event(&mut self, event: &Event) {
        let (what, who, room) = match event {
            Event::Online(who) => ("online", who, ""),
            Event::Offline(who) => ("offline", who, ""),
            Event::RoomJoined(change) => ("room-joined", &change.who, change.room.as_str()),
            Event::RoomLeft(change) => ("room-left", &change.who, change.room.as_str()),
        };
        log::info(format!("{what} {} {room}", who.uid));
        faults::commit(&who.uid);
        if let Some(to) = &self.announce {
            let message = Message::new("event").with("what", what).with("uid", who.uid.as_str()).with("room", room);
            if let Err(e) = outbox::push(Target::room(to.as_str()), message) {
                log::error(format!("announce: {e}"));
            }
        }
    }
}

skylark_plugin::export!(Faulty: events);

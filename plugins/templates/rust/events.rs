//! Writes online, offline, join and leave events into the node's log.

use skylark_plugin::{Event, Events, NoSettings, Plugin, log};

pub struct MyPlugin;

impl Plugin for MyPlugin {
    type Settings = NoSettings;

    fn start(_: NoSettings) -> Result<Self, String> {
        Ok(Self)
    }
}

impl Events for MyPlugin {
    fn on_event(&mut self, event: &Event) {
        match event {
            Event::Online(who) => log::info(format!("{} is online", who.uid)),
            Event::Offline(who) => log::info(format!("{} is offline", who.uid)),
            Event::RoomJoined(change) => log::info(format!("{} joined {}", change.who.uid, change.room)),
            Event::RoomLeft(change) => log::info(format!("{} left {}", change.who.uid, change.room)),
        }
    }
}

skylark_plugin::export!(MyPlugin: events);

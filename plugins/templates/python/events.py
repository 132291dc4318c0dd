"""Writes online, offline, join and leave events into the node's log."""

from wit_world import exports
from wit_world.exports.events import Event, Event_Offline, Event_Online, Event_RoomJoined
from wit_world.imports import log


class Events(exports.Events):
    def on_event(self, event: Event) -> None:
        match event:
            case Event_Online(who):
                line = f"{who.uid} is online"
            case Event_Offline(who):
                line = f"{who.uid} is offline"
            case Event_RoomJoined(change):
                line = f"{change.who.uid} joined {change.room}"
            case _:
                line = f"{event.value.who.uid} left {event.value.room}"
        log.write(log.Level.INFO, line)

// Package events is the role that hears of who comes and goes: set OnEvent.
package events

import (
	export "skylark/internal/wit/export_skylark_plugin_events"
	_ "skylark/internal/wit/exports/events"
	wit "skylark/internal/wit/skylark_plugin_events"
)

// Event is what happened: its Tag says what, the method of that name whom it is about.
type Event = wit.Event

// RoomChange is who joined or left which room.
type RoomChange = wit.RoomChange

// What happened, by the Tag of an Event.
const (
	Online     = wit.EventOnline
	Offline    = wit.EventOffline
	RoomJoined = wit.EventRoomJoined
	RoomLeft   = wit.EventRoomLeft
)

// OnEvent is the plugin's own. Events come one after the other.
var OnEvent func(Event)

func init() {
	export.OnEvent = func(event Event) { OnEvent(event) }
}

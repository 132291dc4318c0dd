// Package events is the role that receives the events of the node. A plugin sets OnEvent.
package events

import (
	export "skylark/internal/wit/export_skylark_plugin_events"
	_ "skylark/internal/wit/exports/events"
	wit "skylark/internal/wit/skylark_plugin_events"
)

// Event is one event. Its Tag is the kind; the method with that name returns the details.
type Event = wit.Event

// RoomChange is a connection that joined or left a room.
type RoomChange = wit.RoomChange

// Tags of events.
const (
	Online     = wit.EventOnline
	Offline    = wit.EventOffline
	RoomJoined = wit.EventRoomJoined
	RoomLeft   = wit.EventRoomLeft
)

// OnEvent is the function of the plugin. Events come one after the other.
var OnEvent func(Event)

func init() {
	export.OnEvent = func(event Event) { OnEvent(event) }
}

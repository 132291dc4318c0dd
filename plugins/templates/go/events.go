// Writes online, offline, join and leave events into the node's log.
package main

import (
	"skylark/events"
	"skylark/log"
)

func main() {}

func init() { events.OnEvent = tell }

func tell(event events.Event) {
	switch event.Tag() {
	case events.Online:
		log.Info(event.Online().Uid + " is online")
	case events.Offline:
		log.Info(event.Offline().Uid + " is offline")
	case events.RoomJoined:
		change := event.RoomJoined()
		log.Info(change.Who.Uid + " joined " + change.Room)
	case events.RoomLeft:
		change := event.RoomLeft()
		log.Info(change.Who.Uid + " left " + change.Room)
	}
}

// Package publication reads the current publish. Nothing is copied into the plugin until a function asks for it. For
// filters; needs no grant.
package publication

import (
	"skylark"
	wit "skylark/internal/wit/skylark_plugin_publication"
	types "skylark/internal/wit/skylark_plugin_types"
)

// ID is the number of the message; 0 = the node assigns one.
func ID() int64 { return wit.Id() }

// Action is the kind of message.
func Action() string { return wit.Action() }

// Content is the body: texts by key.
func Content() []skylark.Entry { return wit.Content() }

// Sender is the sender as set by the publisher.
func Sender() string { return wit.Sender() }

// Receiver is the receiver as set by the publisher.
func Receiver() string { return wit.Receiver() }

// Extra holds the entries next to the body.
func Extra() []skylark.Entry { return wit.Extra() }

// Title is the headline.
func Title() string { return wit.Title() }

// Image is the address of a picture.
func Image() string { return wit.Image() }

// Format is the format of the content, as CIM names it.
func Format() string { return wit.Format() }

// Timestamp is in milliseconds since 1970; 0 = the node assigns it.
func Timestamp() int64 { return wit.Timestamp() }

// Message is the whole message, to read it or to change it and return it with filter.Replace.
func Message() skylark.Message { return wit.Message() }

// Origin is the way in which the publish arrived: client, http, broker or plugin.
func Origin() string {
	switch wit.Origin() {
	case types.OriginClient:
		return "client"
	case types.OriginHttp:
		return "http"
	case types.OriginBroker:
		return "broker"
	default:
		return "plugin"
	}
}

// Publisher is the user whose connection published; none for back ends.
func Publisher() (string, bool) { return wit.Publisher().Get() }

// TargetKind is connection, device, user, users, room, everyone or everyone-but.
func TargetKind() string {
	switch wit.TargetKind() {
	case wit.AudienceConnection:
		return "connection"
	case wit.AudienceDevice:
		return "device"
	case wit.AudienceUser:
		return "user"
	case wit.AudienceUsers:
		return "users"
	case wit.AudienceRoom:
		return "room"
	case wit.AudienceEveryone:
		return "everyone"
	default:
		return "everyone-but"
	}
}

// TargetCount is the number of users that the target names; 0 for rooms, connections and everyone.
func TargetCount() uint32 { return wit.TargetCount() }

// TargetUids returns the users that the target names, starting at offset, at most 1 000 a call.
func TargetUids(offset, limit uint32) []string { return wit.TargetUids(offset, limit) }

// TargetRoom is the room that the target names.
func TargetRoom() (string, bool) { return wit.TargetRoom().Get() }

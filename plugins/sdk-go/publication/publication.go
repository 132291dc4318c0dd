// Package publication reads the publish under judgement: nothing is copied into the plugin until it asks. For filters; needs no grant.
package publication

import (
	"skylark"
	wit "skylark/internal/wit/skylark_plugin_publication"
	types "skylark/internal/wit/skylark_plugin_types"
)

// ID is the number of the message; 0 = the node gives one.
func ID() int64 { return wit.Id() }

// Action is what kind of message it is.
func Action() string { return wit.Action() }

// Content is the body: texts by key.
func Content() []skylark.Entry { return wit.Content() }

// Sender is who says it, by the publisher's word.
func Sender() string { return wit.Sender() }

// Receiver is who is meant, by the publisher's word.
func Receiver() string { return wit.Receiver() }

// Extra is what goes with the body.
func Extra() []skylark.Entry { return wit.Extra() }

// Title is the headline.
func Title() string { return wit.Title() }

// Image is the address of a picture.
func Image() string { return wit.Image() }

// Format is that of the content, as CIM names it.
func Format() string { return wit.Format() }

// Timestamp is in milliseconds since 1970; 0 = the node gives it.
func Timestamp() int64 { return wit.Timestamp() }

// Message is all of it at once, to read it whole or to change it and hand it back by filter.Replace.
func Message() skylark.Message { return wit.Message() }

// Origin is the way by which it came: client, http, broker or plugin.
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

// TargetCount is how many users the target names; 0 for rooms, connections and everyone.
func TargetCount() uint32 { return wit.TargetCount() }

// TargetUids are the users that the target names, from offset on, at most 1 000 a call.
func TargetUids(offset, limit uint32) []string { return wit.TargetUids(offset, limit) }

// TargetRoom is the room that the target names.
func TargetRoom() (string, bool) { return wit.TargetRoom().Get() }

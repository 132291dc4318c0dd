// Package skylark holds the types that every role shares. A plugin in Go is a package main that sets the function of
// its role:
//
//	package main
//
//	import (
//		"strings"
//
//		"skylark/filter"
//		"skylark/publication"
//	)
//
//	func main() {}
//
//	func init() {
//		filter.Judge = func() filter.Verdict {
//			if strings.Contains(publication.Title(), "gossip") {
//				return filter.Reject("403", "no gossip")
//			}
//			return filter.Allow()
//		}
//	}
//
// The imported packages determine the imports of the plugin. A package that needs a grant names it.
package skylark

import (
	"skylark/internal/values"
	types "skylark/internal/wit/skylark_plugin_types"
)

// Option is a value or none: `value, is := o.Get()`, `o.Or(fallback)`.
type Option[T any] = values.Option[T]

// Some is an option with a value.
func Some[T any](value T) Option[T] { return values.Some(value) }

// None is an option without a value. It is the zero value too.
func None[T any]() Option[T] { return values.None[T]() }

// Message is a message. An empty text means absent; the node assigns an id or timestamp of 0.
type Message = types.Message

// Identity is the user, connection and device of a client.
type Identity = types.Identity

// Refusal is a code of three digits and a reason in plain words.
type Refusal = types.Refusal

// Entry is a key, F0, with its text, F1.
type Entry = types.Entry

// Pair is one entry.
func Pair(key, text string) Entry { return Entry{F0: key, F1: text} }

// Find returns the text of the first entry with the key, and true if there is one.
func Find(entries []Entry, key string) (string, bool) {
	for _, entry := range entries {
		if entry.F0 == key {
			return entry.F1, true
		}
	}
	return "", false
}

// Target is the set of receivers of a push.
type Target = types.Target

// ToConnection is one live connection, by its cid.
func ToConnection(cid uint64) Target { return types.MakeTargetConnection(cid) }

// ToDevice is a user's connections of one device.
func ToDevice(uid, device string) Target {
	return types.MakeTargetDevice(types.DeviceOf{Uid: uid, Device: device})
}

// ToUser is all connections of a user.
func ToUser(uid string) Target { return types.MakeTargetUser(uid) }

// ToUsers is all connections of these users.
func ToUsers(uids ...string) Target { return types.MakeTargetUsers(uids) }

// ToRoom is the connections in a room.
func ToRoom(room string) Target { return types.MakeTargetRoom(room) }

// ToEveryone is every bound connection.
func ToEveryone() Target { return types.MakeTargetEveryone() }

// ToEveryoneBut is everyone online except these users.
func ToEveryoneBut(uids ...string) Target { return types.MakeTargetEveryoneBut(uids) }

// StreamName is a stream of kept messages.
type StreamName = types.StreamName

// UserStream holds the messages to this user or to one of the user's devices.
func UserStream(uid string) StreamName { return types.MakeStreamNameUser(uid) }

// RoomStream holds the messages to this room.
func RoomStream(room string) StreamName { return types.MakeStreamNameRoom(room) }

// EveryoneStream holds the messages to everyone, or to everyone except some users.
func EveryoneStream() StreamName { return types.MakeStreamNameEveryone() }

// StreamText is the stream as in the push API: u:UID, r:ROOM or all.
func StreamText(name StreamName) string {
	switch name.Tag() {
	case types.StreamNameUser:
		return "u:" + name.User()
	case types.StreamNameRoom:
		return "r:" + name.Room()
	default:
		return "all"
	}
}

// Error is an error of the node.
type Error struct {
	// Name as in the interface, e.g. too-large.
	Name string
	// Detail is the reason; empty if the name says everything.
	Detail string
}

// Error returns the name and the detail.
func (e *Error) Error() string {
	if e.Detail == "" {
		return e.Name
	}
	return e.Name + ": " + e.Detail
}

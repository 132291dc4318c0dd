// Package outbox has effects on others: committed all together when the call ends well, or not at all. Grant: outbox.
package outbox

import (
	"skylark"
	"skylark/internal/values"
	wit "skylark/internal/wit/skylark_plugin_outbox"
)

// Options say how a push is published.
type Options = wit.Options

// Configured history is as the node's configuration says.
func Configured() wit.History { return wit.MakeHistoryConfigured() }

// NotKept has no history.
func NotKept() wit.History { return wit.MakeHistoryNo() }

// KeptFor has a history of so many seconds.
func KeptFor(seconds uint32) wit.History { return wit.MakeHistoryTtl(seconds) }

// Push publishes a message; it passes the filters like any other.
func Push(target skylark.Target, message skylark.Message) error {
	return told(wit.Push(target, message, values.None[Options]()))
}

// PushWith publishes a message in a way of its own.
func PushWith(target skylark.Target, message skylark.Message, options Options) error {
	return told(wit.Push(target, message, values.Some(options)))
}

// Join lets the user's connections join the room.
func Join(uid, room string) error { return told(wit.Join(uid, room)) }

// Leave lets the user's connections leave the room.
func Leave(uid, room string) error { return told(wit.Leave(uid, room)) }

// Kick closes the target's connections: a connection, a device, users.
func Kick(target skylark.Target, reason string) error { return told(wit.Kick(target, reason)) }

func told(result values.Result[values.Unit, wit.Error]) error {
	if result.Tag() == values.ResultOk {
		return nil
	}
	switch err := result.Err(); err.Tag() {
	case wit.ErrorTooMany:
		return &skylark.Error{Name: "too-many"}
	case wit.ErrorTooLarge:
		return &skylark.Error{Name: "too-large"}
	case wit.ErrorTooManyHops:
		return &skylark.Error{Name: "too-many-hops"}
	default:
		return &skylark.Error{Name: "invalid", Detail: err.Invalid()}
	}
}

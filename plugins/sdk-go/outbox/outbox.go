// Package outbox has effects on other clients. All of them are committed together when the call succeeds, else none.
// Grant: outbox.
package outbox

import (
	"skylark"
	"skylark/internal/values"
	wit "skylark/internal/wit/skylark_plugin_outbox"
)

// Options are the options of a push.
type Options = wit.Options

// Configured uses the history of the node's configuration.
func Configured() wit.History { return wit.MakeHistoryConfigured() }

// NotKept does not keep the message in the history.
func NotKept() wit.History { return wit.MakeHistoryNo() }

// KeptFor keeps the message in the history for this many seconds.
func KeptFor(seconds uint32) wit.History { return wit.MakeHistoryTtl(seconds) }

// Push publishes a message. It passes the filters like any other.
func Push(target skylark.Target, message skylark.Message) error {
	return told(wit.Push(target, message, values.None[Options]()))
}

// PushWith publishes a message with options.
func PushWith(target skylark.Target, message skylark.Message, options Options) error {
	return told(wit.Push(target, message, values.Some(options)))
}

// Join adds the user's connections to the room.
func Join(uid, room string) error { return told(wit.Join(uid, room)) }

// Leave removes the user's connections from the room.
func Leave(uid, room string) error { return told(wit.Leave(uid, room)) }

// Kick closes the connections of the target: a connection, a device, a user or users.
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

// Package access is the role that decides which rooms a client may join. A plugin sets Join.
package access

import (
	"skylark"
	export "skylark/internal/wit/export_skylark_plugin_access"
	_ "skylark/internal/wit/exports/access"
	wit "skylark/internal/wit/skylark_plugin_access"
)

// Request is a client's request to join a room.
type Request struct {
	// Who is the client that asks.
	Who skylark.Identity
	// Claims of the connection's last admission or login. None of them comes from the client.
	Claims []skylark.Entry
	// Room is the room.
	Room string
	// Data that the client sent with the room. None of it is verified.
	Data []skylark.Entry
}

// Answer is the decision about one join.
type Answer = wit.Answer

// Join is the function of the plugin.
var Join func(Request) Answer

// Allow lets the client join until it leaves.
func Allow() Answer { return wit.MakeAnswerAllow(skylark.None[uint64]()) }

// AllowUntil lets the client join until this time, in seconds since 1970.
func AllowUntil(seconds uint64) Answer { return wit.MakeAnswerAllow(skylark.Some(seconds)) }

// Refuse sends the client a code of three digits and a reason; no other plugin decides.
func Refuse(code, reason string) Answer {
	return wit.MakeAnswerRefuse(skylark.Refusal{Code: code, Reason: reason})
}

// Abstain leaves the decision to the next plugin.
func Abstain() Answer { return wit.MakeAnswerAbstain() }

func init() {
	export.Join = func(who skylark.Identity, claims []skylark.Entry, room string, data []skylark.Entry) Answer {
		return Join(Request{Who: who, Claims: claims, Room: room, Data: data})
	}
}

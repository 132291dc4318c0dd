// Package access is the role that decides which rooms a client may join: set Join.
package access

import (
	"skylark"
	export "skylark/internal/wit/export_skylark_plugin_access"
	_ "skylark/internal/wit/exports/access"
	wit "skylark/internal/wit/skylark_plugin_access"
)

// Request is a client's wish to join a room.
type Request struct {
	// Who asks.
	Who skylark.Identity
	// Claims of the connection's last admission or login. The client typed nothing of them.
	Claims []skylark.Entry
	// Room is the room.
	Room string
	// Data that the client sent beside the room. Nothing of it is a fact.
	Data []skylark.Entry
}

// Answer is the decision about one join.
type Answer = wit.Answer

// Join is the plugin's own.
var Join func(Request) Answer

// Allow lets the client join until it leaves.
func Allow() Answer { return wit.MakeAnswerAllow(skylark.None[uint64]()) }

// AllowUntil lets the client join until this second since 1970.
func AllowUntil(seconds uint64) Answer { return wit.MakeAnswerAllow(skylark.Some(seconds)) }

// Refuse tells the client a code of three digits and a reason; no other plugin is asked.
func Refuse(code, reason string) Answer {
	return wit.MakeAnswerRefuse(skylark.Refusal{Code: code, Reason: reason})
}

// Abstain leaves it to the next plugin.
func Abstain() Answer { return wit.MakeAnswerAbstain() }

func init() {
	export.Join = func(who skylark.Identity, claims []skylark.Entry, room string, data []skylark.Entry) Answer {
		return Join(Request{Who: who, Claims: claims, Room: room, Data: data})
	}
}

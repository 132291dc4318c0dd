// Package history reads kept messages. For access, handlers and events. Grant: history.
package history

import (
	"skylark"
	"skylark/internal/values"
	wit "skylark/internal/wit/skylark_plugin_history"
)

// Position is the place of a message in its stream.
type Position = wit.StreamPosition

// Kept is a kept message.
type Kept = wit.KeptMessage

// Page holds messages of a stream, the oldest first, and the position of the last message of the stream.
type Page = wit.Page

// Missed is the reason for which messages after a position are missing.
type Missed = wit.Missed

// Latest returns the newest messages of the stream, at most limit and at most 100.
func Latest(name skylark.StreamName, limit uint32) (Page, error) { return page(wit.Latest(name, limit)) }

// After returns the messages after the position, at most limit and at most 100. To read on, pass the offset and id of
// the last message with the epoch of Top.
func After(name skylark.StreamName, position Position, limit uint32) (Page, error) {
	return page(wit.After(name, position, limit))
}

// PositionOf returns the position of the last message of the stream.
func PositionOf(name skylark.StreamName) (Position, error) {
	result := wit.Position(name)
	if result.Tag() == values.ResultOk {
		return result.Ok(), nil
	}
	return Position{}, failed(result.Err())
}

// Name is the name of a reason in the interface: trimmed, epoch or fork.
func Name(reason Missed) string {
	switch reason {
	case wit.MissedTrimmed:
		return "trimmed"
	case wit.MissedEpoch:
		return "epoch"
	default:
		return "fork"
	}
}

func page(result values.Result[Page, wit.Error]) (Page, error) {
	if result.Tag() == values.ResultOk {
		return result.Ok(), nil
	}
	return Page{}, failed(result.Err())
}

func failed(err wit.Error) error {
	if err.Tag() == wit.ErrorOff {
		return &skylark.Error{Name: "off"}
	}
	return &skylark.Error{Name: "invalid", Detail: err.Invalid()}
}

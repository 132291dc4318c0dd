// Package timers asks for one call later, which the package alarms receives. Set when the call ends well. Grant: timers.
package timers

import (
	"skylark"
	"skylark/internal/values"
	wit "skylark/internal/wit/skylark_plugin_timers"
)

// Start has OnTimer called with this name and data in so many milliseconds; an earlier timer of the name is replaced.
func Start(name string, afterMs uint64, data []byte) error {
	return told(wit.Start(name, afterMs, data))
}

// Cancel forgets the timer of this name, if there is one.
func Cancel(name string) error { return told(wit.Cancel(name)) }

func told(result values.Result[values.Unit, wit.Error]) error {
	if result.Tag() == values.ResultOk {
		return nil
	}
	if err := result.Err(); err.Tag() == wit.ErrorInvalid {
		return &skylark.Error{Name: "invalid", Detail: err.Invalid()}
	}
	return &skylark.Error{Name: "too-many"}
}

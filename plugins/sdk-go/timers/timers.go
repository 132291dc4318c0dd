// Package timers sets timers, which the package alarms receives. They are set when the call succeeds. Grant: timers.
package timers

import (
	"skylark"
	"skylark/internal/values"
	wit "skylark/internal/wit/skylark_plugin_timers"
)

// Start calls OnTimer with this name and data after so many milliseconds. It replaces an earlier timer of the name.
func Start(name string, afterMs uint64, data []byte) error {
	return told(wit.Start(name, afterMs, data))
}

// Cancel cancels the timer of this name, if there is one.
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

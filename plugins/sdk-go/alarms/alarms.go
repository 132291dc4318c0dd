// Package alarms receives timers of handlers and events. A plugin sets OnTimer.
package alarms

import (
	export "skylark/internal/wit/export_skylark_plugin_alarms"
	_ "skylark/internal/wit/exports/alarms"
)

// OnTimer is the function of the plugin. It gets the name and the data of a due timer.
var OnTimer func(name string, data []byte)

func init() {
	export.OnTimer = func(name string, data []byte) { OnTimer(name, data) }
}

// Package alarms is for handlers and events that set timers: set OnTimer.
package alarms

import (
	export "skylark/internal/wit/export_skylark_plugin_alarms"
	_ "skylark/internal/wit/exports/alarms"
)

// OnTimer is the plugin's own: told the name and the data of a timer that is due.
var OnTimer func(name string, data []byte)

func init() {
	export.OnTimer = func(name string, data []byte) { OnTimer(name, data) }
}

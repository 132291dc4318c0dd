// Package export_skylark_plugin_alarms is where the bindings find the plugin.
package export_skylark_plugin_alarms

// OnTimer is set by the package alarms.
var OnTimer func(name string, data []uint8)

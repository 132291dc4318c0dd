// Package export_skylark_plugin_alarms holds the functions of the plugin for the bindings.
package export_skylark_plugin_alarms

// OnTimer is set by the package alarms.
var OnTimer func(name string, data []uint8)

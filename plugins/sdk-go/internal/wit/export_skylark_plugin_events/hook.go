// Package export_skylark_plugin_events holds the functions of the plugin for the bindings.
package export_skylark_plugin_events

import wit "skylark/internal/wit/skylark_plugin_events"

// OnEvent is set by the package events.
var OnEvent func(wit.Event)

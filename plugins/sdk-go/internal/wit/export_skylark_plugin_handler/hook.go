// Package export_skylark_plugin_handler is where the bindings find the plugin.
package export_skylark_plugin_handler

import (
	"skylark/internal/values"
	wit "skylark/internal/wit/skylark_plugin_handler"
)

// Set by the package handler.
var (
	Keys   func() []string
	Handle func(wit.Call) values.Result[wit.Reply, string]
)

// Package export_skylark_plugin_handler holds the functions of the plugin for the bindings.
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

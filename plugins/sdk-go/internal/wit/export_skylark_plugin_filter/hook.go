// Package export_skylark_plugin_filter holds the functions of the plugin for the bindings.
package export_skylark_plugin_filter

import wit "skylark/internal/wit/skylark_plugin_filter"

// Judge is set by the package filter.
var Judge func() wit.Verdict

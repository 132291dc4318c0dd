// Package export_skylark_plugin_lifecycle is where the bindings find the plugin.
package export_skylark_plugin_lifecycle

import "skylark/internal/values"

// Start is set by the package lifecycle.
var Start func() values.Result[values.Unit, string]

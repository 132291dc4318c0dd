// Package export_skylark_plugin_lifecycle holds the functions of the plugin for the bindings.
package export_skylark_plugin_lifecycle

import "skylark/internal/values"

// Start is set by the package lifecycle.
var Start func() values.Result[values.Unit, string]

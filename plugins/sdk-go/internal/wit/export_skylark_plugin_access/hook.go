// Package export_skylark_plugin_access is where the bindings find the plugin.
package export_skylark_plugin_access

import wit "skylark/internal/wit/skylark_plugin_access"

// Join is set by the package access.
var Join func(wit.Identity, []wit.Entry, string, []wit.Entry) wit.Answer

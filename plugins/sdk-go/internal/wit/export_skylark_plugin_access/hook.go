// Package export_skylark_plugin_access holds the functions of the plugin for the bindings.
package export_skylark_plugin_access

import wit "skylark/internal/wit/skylark_plugin_access"

// Join is set by the package access.
var Join func(wit.Identity, []wit.Entry, string, []wit.Entry) wit.Answer

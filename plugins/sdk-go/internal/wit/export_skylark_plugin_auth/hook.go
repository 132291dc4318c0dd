// Package export_skylark_plugin_auth holds the functions of the plugin for the bindings.
package export_skylark_plugin_auth

import wit "skylark/internal/wit/skylark_plugin_auth"

// Admit is set by the package auth.
var Admit func(wit.Transport, wit.Claim) wit.Answer

// Package export_skylark_plugin_receipts holds the functions of the plugin for the bindings.
package export_skylark_plugin_receipts

import (
	wit "skylark/internal/wit/skylark_plugin_receipts"
	types "skylark/internal/wit/skylark_plugin_types"
)

// Resumed is set by the package receipts.
var Resumed func(who types.Identity, streams []wit.ResumedStream)

// Undelivered is set by the package receipts.
var Undelivered func(uid string, id int64, cause wit.Cause)

// Package receipts is an optional export of plugins with the role events: it receives the outcome of kept messages. A
// plugin sets Resumed, Undelivered or both.
package receipts

import (
	"skylark"
	export "skylark/internal/wit/export_skylark_plugin_receipts"
	_ "skylark/internal/wit/exports/receipts"
	wit "skylark/internal/wit/skylark_plugin_receipts"
)

// Stream is one stream of a client that came back.
type Stream = wit.ResumedStream

// Resumed is a function of the plugin. It gets a client that came back, and the streams that the client had a position
// of.
var Resumed = func(who skylark.Identity, streams []Stream) {}

// Undelivered is a function of the plugin. It gets a kept message that reached no device of the user; cause is offline
// or unacknowledged. The same message may be reported more than once: compare ids.
var Undelivered = func(uid string, id int64, cause string) {}

func init() {
	export.Resumed = func(who skylark.Identity, streams []Stream) { Resumed(who, streams) }
	export.Undelivered = func(uid string, id int64, cause wit.Cause) { Undelivered(uid, id, name(cause)) }
}

func name(cause wit.Cause) string {
	if cause == wit.CauseOffline {
		return "offline"
	}
	return "unacknowledged"
}

// Package filter is the role that judges each publish once. A plugin sets Judge. The package publication reads the
// publish.
package filter

import (
	"skylark"
	"skylark/internal/abi"
	export "skylark/internal/wit/export_skylark_plugin_filter"
	_ "skylark/internal/wit/exports/filter"
	wit "skylark/internal/wit/skylark_plugin_filter"
)

// Verdict is the decision about the publish.
type Verdict = wit.Verdict

// Judge is the function of the plugin.
var Judge func() Verdict

// Allow lets the publish continue unchanged.
func Allow() Verdict { return wit.MakeVerdictAllow() }

// Replace lets the publish continue with this message. The target stays.
func Replace(message skylark.Message) Verdict { return wit.MakeVerdictReplace(message) }

// Reject sends the publisher a code of three digits and a reason.
func Reject(code, reason string) Verdict {
	return wit.MakeVerdictReject(skylark.Refusal{Code: code, Reason: reason})
}

// Drop discards the publish; the publisher learns that it was dropped.
func Drop() Verdict { return wit.MakeVerdictDrop() }

func init() {
	export.Judge = func() Verdict {
		abi.Unpin()
		return Judge()
	}
}

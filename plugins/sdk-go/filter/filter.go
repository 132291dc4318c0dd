// Package filter is the role that judges each publish once: set Judge. What is judged is read by the package publication.
package filter

import (
	"skylark"
	"skylark/internal/abi"
	export "skylark/internal/wit/export_skylark_plugin_filter"
	_ "skylark/internal/wit/exports/filter"
	wit "skylark/internal/wit/skylark_plugin_filter"
)

// Verdict is what becomes of the publish.
type Verdict = wit.Verdict

// Judge is the plugin's own.
var Judge func() Verdict

// Allow lets it go on as it is.
func Allow() Verdict { return wit.MakeVerdictAllow() }

// Replace lets it go on with this message. Its target stays.
func Replace(message skylark.Message) Verdict { return wit.MakeVerdictReplace(message) }

// Reject tells the publisher a code of three digits and a reason.
func Reject(code, reason string) Verdict {
	return wit.MakeVerdictReject(skylark.Refusal{Code: code, Reason: reason})
}

// Drop lets it disappear; the publisher is told that it was dropped.
func Drop() Verdict { return wit.MakeVerdictDrop() }

func init() {
	export.Judge = func() Verdict {
		abi.Unpin()
		return Judge()
	}
}

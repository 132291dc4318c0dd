// Package lifecycle runs work once in each fresh instance, before its first call. A plugin sets Start.
package lifecycle

import (
	"skylark/internal/abi"
	"skylark/internal/values"
	export "skylark/internal/wit/export_skylark_plugin_lifecycle"
	_ "skylark/internal/wit/exports/lifecycle"
)

// Start is the function of the plugin. Its error refuses the instance, and at load the whole file, with its text.
var Start func() error

func init() {
	export.Start = func() values.Result[values.Unit, string] {
		abi.Unpin()
		if err := Start(); err != nil {
			return values.Err[values.Unit](err.Error())
		}
		return values.Ok[values.Unit, string](values.Unit{})
	}
}

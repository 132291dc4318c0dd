// Package handler is the role that answers the SendBody keys that it owns. A plugin sets Keys and Handle.
package handler

import (
	"skylark"
	"skylark/internal/abi"
	"skylark/internal/values"
	export "skylark/internal/wit/export_skylark_plugin_handler"
	_ "skylark/internal/wit/exports/handler"
	wit "skylark/internal/wit/skylark_plugin_handler"
)

// Call is a request of a client.
type Call = wit.Call

// Reply is the reply to the client: a code of three digits, a message in plain words, and data.
type Reply = wit.Reply

// Keys are the keys that the plugin owns.
var Keys []string

// Handle is the function of the plugin. With an error nothing is committed, the error goes to the node's log, and the
// client gets "503".
var Handle func(asked Call) (Reply, error)

// Ok is the reply "200" with these entries.
func Ok(data ...skylark.Entry) Reply { return Reply{Code: "200", Data: data} }

// Refuse is a reply with a code of three digits and a reason.
func Refuse(code, reason string) Reply { return Reply{Code: code, Message: reason} }

func init() {
	export.Keys = func() []string {
		abi.Unpin()
		return Keys
	}
	export.Handle = func(asked Call) values.Result[Reply, string] {
		reply, err := Handle(asked)
		if err != nil {
			return values.Err[Reply](err.Error())
		}
		return values.Ok[Reply, string](reply)
	}
}

// Package auth is the role that authenticates clients. A plugin sets Admit.
package auth

import (
	"skylark"
	export "skylark/internal/wit/export_skylark_plugin_auth"
	_ "skylark/internal/wit/exports/auth"
	wit "skylark/internal/wit/skylark_plugin_auth"
)

// Transport has the facts of the transport. A client cannot set them with a frame.
type Transport = wit.Transport

// Claim has the unverified claims of the client.
type Claim = wit.Claim

// Admission has the verified identity of the client.
type Admission = wit.Admission

// Answer is the decision about the client.
type Answer = wit.Answer

// Admit is the function of the plugin.
var Admit func(from Transport, said Claim) Answer

// LetIn admits the client as this user.
func LetIn(who Admission) Answer { return wit.MakeAnswerAdmit(who) }

// Refuse sends the client a code of three digits and a reason; no other plugin decides.
func Refuse(code, reason string) Answer {
	return wit.MakeAnswerRefuse(skylark.Refusal{Code: code, Reason: reason})
}

// Abstain leaves the decision to the next plugin.
func Abstain() Answer { return wit.MakeAnswerAbstain() }

func init() {
	export.Admit = func(from Transport, said Claim) Answer { return Admit(from, said) }
}

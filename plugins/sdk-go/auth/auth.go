// Package auth is the role that decides who gets in: set Admit.
package auth

import (
	"skylark"
	export "skylark/internal/wit/export_skylark_plugin_auth"
	_ "skylark/internal/wit/exports/auth"
	wit "skylark/internal/wit/skylark_plugin_auth"
)

// Transport is what the transport knows. Nothing that a client types in a frame can appear here.
type Transport = wit.Transport

// Claim is what the client says of itself.
type Claim = wit.Claim

// Admission is who the client really is.
type Admission = wit.Admission

// Answer is what becomes of the client.
type Answer = wit.Answer

// Admit is the plugin's own.
var Admit func(from Transport, said Claim) Answer

// LetIn lets the client in, as this user.
func LetIn(who Admission) Answer { return wit.MakeAnswerAdmit(who) }

// Refuse tells the client a code of three digits and a reason; no other plugin is asked.
func Refuse(code, reason string) Answer {
	return wit.MakeAnswerRefuse(skylark.Refusal{Code: code, Reason: reason})
}

// Abstain leaves it to the next plugin.
func Abstain() Answer { return wit.MakeAnswerAbstain() }

func init() {
	export.Admit = func(from Transport, said Claim) Answer { return Admit(from, said) }
}

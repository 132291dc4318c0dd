// Package login gives connections their user, for login flows. The grant is a great one: it makes any connection anybody's. Grant: login.
package login

import (
	"skylark"
	"skylark/internal/values"
	wit "skylark/internal/wit/skylark_plugin_login"
)

// Account is whose the connection becomes.
type Account = wit.Account

// Bind makes the connection this user's when the call ends well.
func Bind(cid uint64, account Account) error {
	result := wit.Bind(cid, account)
	if result.Tag() == values.ResultOk {
		return nil
	}
	switch err := result.Err(); err.Tag() {
	case wit.ErrorTooMany:
		return &skylark.Error{Name: "too-many"}
	case wit.ErrorGone:
		return &skylark.Error{Name: "gone"}
	default:
		return &skylark.Error{Name: "invalid", Detail: err.Invalid()}
	}
}

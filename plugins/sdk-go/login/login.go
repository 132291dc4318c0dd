// Package login binds connections to users, for login flows. The grant is powerful: it can bind any connection to any
// user. Grant: login.
package login

import (
	"skylark"
	"skylark/internal/values"
	wit "skylark/internal/wit/skylark_plugin_login"
)

// Account is the user of a connection, with the details of the login.
type Account = wit.Account

// Bind binds the connection to this user when the call succeeds.
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

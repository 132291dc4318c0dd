// Admits clients with the token of the settings, as the user that they claim to be.
package main

import (
	"skylark/auth"
	"skylark/settings"
)

func main() {}

func init() { auth.Admit = admit }

func admit(_ auth.Transport, said auth.Claim) auth.Answer {
	token, hasToken := said.Token.Get()
	if !hasToken {
		return auth.Abstain()
	}
	wanted, isSet := settings.Get("token")
	uid, hasUid := said.Uid.Get()
	if !isSet || token != wanted || !hasUid {
		return auth.Refuse("401", "wrong token")
	}
	return auth.LetIn(auth.Admission{Uid: uid})
}

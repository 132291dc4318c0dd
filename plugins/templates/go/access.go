// Lets users join the rooms of their team: the room "team:red" requires the claim "team" = "red".
package main

import (
	"strings"

	"skylark"
	"skylark/access"
	"skylark/settings"
)

func main() {}

func init() { access.Join = join }

func join(asked access.Request) access.Answer {
	room, isTeams := strings.CutPrefix(asked.Room, settings.Text("prefix", "team:"))
	if !isTeams {
		return access.Abstain()
	}
	team, hasTeam := skylark.Find(asked.Claims, "team")
	if !hasTeam || team != room {
		return access.Refuse("403", "the room of another team")
	}
	return access.Allow()
}

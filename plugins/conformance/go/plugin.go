// The conformance guest in Go. ../README.md describes its behaviour.
package main

import (
	"errors"
	"fmt"
	"strings"

	"skylark"
	"skylark/access"
	"skylark/auth"
	"skylark/clock"
	"skylark/counters"
	"skylark/directory"
	"skylark/filter"
	"skylark/kv"
	"skylark/lifecycle"
	"skylark/log"
	"skylark/publication"
	"skylark/settings"
)

func main() {}

func init() {
	lifecycle.Start = start
	auth.Admit = admit
	access.Join = join
	filter.Judge = judge
}

func start() error {
	switch settings.Text("start", "") {
	case "error":
		return errors.New("told to fail")
	case "trap":
		trap()
	}
	return nil
}

func admit(from auth.Transport, said auth.Claim) auth.Answer {
	token, hasToken := said.Token.Get()
	switch {
	case !hasToken:
		return auth.Abstain()
	case token == "no":
		return auth.Refuse("403", "refused")
	case token == "trap":
		trap()
	case token == "write":
		if err := kv.Set("k", []byte("v"), kv.Forever); err != nil {
			return auth.Refuse("409", name(err))
		}
	}
	claims := []skylark.Entry{
		skylark.Pair("listener", from.Listener),
		skylark.Pair("remote", from.Remote),
		skylark.Pair("path", from.Path),
		skylark.Pair("origin", from.Origin.Or("-")),
		skylark.Pair("agent", from.UserAgent.Or("-")),
		skylark.Pair("bound", from.Bound.Or("-")),
		skylark.Pair("channel", said.Channel.Or("-")),
	}
	return auth.LetIn(auth.Admission{
		Uid:     said.Uid.Or("-"),
		Device:  said.Device,
		Rooms:   []string{"a", "b"},
		Expires: skylark.Some(clock.Now()/1000 + 60),
		Claims:  append(claims, said.Data...),
	})
}

func join(asked access.Request) access.Answer {
	switch asked.Room {
	case "no":
		return access.Refuse("403", "refused")
	case "trap":
		trap()
	case "write":
		if err := kv.Set("k", []byte("v"), kv.Forever); err != nil {
			return access.Refuse("409", name(err))
		}
		return access.Allow()
	case "until":
		return access.AllowUntil(clock.Now()/1000 + 60)
	case "seen":
		who := asked.Who
		return access.Refuse("418", strings.Join([]string{who.Uid, fmt.Sprint(who.Cid), who.Device.Or("-"),
			who.Channel.Or("-"), listed(asked.Claims), listed(asked.Data)}, "|"))
	}
	if room, isNamed := skylark.Find(asked.Claims, "join"); isNamed && room == asked.Room {
		return access.Allow()
	}
	return access.Abstain()
}

func listed(entries []skylark.Entry) string {
	texts := make([]string, len(entries))
	for i, entry := range entries {
		texts[i] = entry.F0 + "=" + entry.F1
	}
	return strings.Join(texts, ",")
}

func judge() filter.Verdict {
	switch publication.Action() {
	case "reject":
		return filter.Reject("403", publication.Title())
	case "drop":
		return filter.Drop()
	case "trap":
		trap()
	case "spin":
		spin()
	case "write":
		if err := kv.Set("k", []byte("v"), kv.Forever); err != nil {
			return filter.Reject("409", name(err))
		}
	case "fields":
		return titled(publication.Action(), publication.Sender(), publication.Receiver(), publication.Image(),
			publication.Format(), fmt.Sprint(publication.ID()), fmt.Sprint(publication.Timestamp()))
	case "seen":
		return seen()
	case "online":
		if !directory.Online(publication.Receiver()) {
			return filter.Drop()
		}
	// example: counters
	case "count":
		if counters.AddAndRead(publication.Sender(), 60, 1) > 2 {
			return filter.Reject("429", "too many")
		}
	// end
	case "log":
		log.Debug("one")
		log.Info("two")
		log.Warn("three")
		log.Error("four")
	case "setting":
		return filter.Reject("403", settings.Text("word", "-"))
	}
	return filter.Allow()
}

func seen() filter.Verdict {
	publisher, isClient := publication.Publisher()
	if !isClient {
		publisher = "-"
	}
	room, isRoom := publication.TargetRoom()
	if !isRoom {
		room = "-"
	}
	uids := strings.Join(publication.TargetUids(0, 1000), ",")
	message := publication.Message()
	message.Title = strings.Join([]string{publisher, publication.Origin(), publication.TargetKind(),
		fmt.Sprint(publication.TargetCount()), uids, room}, "|")
	message.Extra = append(message.Extra, skylark.Pair("parts", fmt.Sprint(len(publication.Content()))))
	return filter.Replace(message)
}

func titled(parts ...string) filter.Verdict {
	message := publication.Message()
	message.Title = strings.Join(parts, "|")
	return filter.Replace(message)
}

// name is the name of an error of the node.
func name(err error) string {
	var told *skylark.Error
	if errors.As(err, &told) {
		return told.Name
	}
	return err.Error()
}

func trap() { panic("trap") }

func spin() {
	for {
	}
}

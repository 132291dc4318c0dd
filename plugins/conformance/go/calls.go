// The roles handler and events of the guest, and its timers.
package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"skylark"
	"skylark/alarms"
	"skylark/clock"
	"skylark/crypto"
	"skylark/directory"
	"skylark/events"
	"skylark/handler"
	"skylark/history"
	"skylark/http"
	"skylark/kv"
	"skylark/log"
	"skylark/login"
	"skylark/outbox"
	"skylark/receipts"
	"skylark/timers"
)

func init() {
	handler.Keys = []string{"echo", "kv", "cas", "add", "push", "room", "kick", "who", "crypto", "http", "login",
		"timer", "history", "hog", "fail", "trap", "spin"}
	handler.Handle = handle
	events.OnEvent = onEvent
	alarms.OnTimer = onTimer
	receipts.Resumed = resumed
	receipts.Undelivered = undelivered
}

func handle(asked handler.Call) (handler.Reply, error) {
	data := map[string]string{}
	for _, entry := range asked.Data {
		data[entry.F0] = entry.F1
	}
	caller := "-"
	if who, isBound := asked.Caller.Get(); isBound {
		caller = who.Uid
	}
	switch asked.Key {
	case "echo":
		cid := skylark.Pair("cid", fmt.Sprint(asked.Cid))
		return handler.Reply{Code: "200", Message: caller, Data: append(asked.Data, cid)}, nil
	case "kv", "cas", "add":
		return kept(asked.Key, data)
	case "push", "room", "kick":
		return effect(asked, caller, data)
	case "who":
		return who(data), nil
	case "crypto":
		return digests(data), nil
	case "http":
		return fetch(data), nil
	case "login":
		return bind(data), nil
	case "timer":
		return timer(data), nil
	case "history":
		return read(data), nil
	case "hog":
		for hoard := [][]byte{}; ; {
			hoard = append(hoard, make([]byte, 1<<20))
		}
	}
	if err := outbox.Push(skylark.ToUser(caller), skylark.Message{Action: "hi", Sender: caller}); err != nil {
		return handler.Reply{}, err
	}
	switch asked.Key {
	case "fail":
		return handler.Reply{}, errors.New("told to fail")
	case "trap":
		trap()
	}
	spin()
	return handler.Reply{}, nil
}

// example: outbox
func effect(asked handler.Call, caller string, data map[string]string) (handler.Reply, error) {
	switch asked.Key {
	case "push":
		message := skylark.Message{Action: "hi", Sender: caller, Content: []skylark.Entry{skylark.Pair("text", data["text"])}}
		options := outbox.Options{Key: skylark.Some("once"), History: outbox.NotKept(), NoEcho: skylark.Some(asked.Cid)}
		var told *skylark.Error
		if errors.As(outbox.PushWith(skylark.ToUser(data["to"]), message, options), &told) {
			return handler.Refuse("400", told.Detail), nil
		}
	case "room":
		if err := errors.Join(outbox.Join(caller, data["join"]), outbox.Leave(caller, data["leave"])); err != nil {
			return handler.Reply{}, err
		}
	case "kick":
		if err := outbox.Kick(skylark.ToUser(data["who"]), "told to go"); err != nil {
			return handler.Reply{}, err
		}
	}
	return handler.Ok(), nil
}

// end

// example: kv
func kept(key string, data map[string]string) (handler.Reply, error) {
	switch key {
	case "cas":
		expected := skylark.None[[]byte]()
		if text, is := data["expected"]; is {
			expected = skylark.Some([]byte(text))
		}
		done, err := kv.CompareAndSwap("k", expected, []byte(data["value"]), kv.Forever)
		return handler.Ok(skylark.Pair("done", fmt.Sprint(done))), err
	case "add":
		amount, err := strconv.ParseInt(data["amount"], 10, 64)
		if err != nil {
			return handler.Reply{}, err
		}
		sum, err := kv.Add("n", amount, kv.Forever)
		if err != nil {
			return handler.Refuse("409", name(err)), nil
		}
		return handler.Ok(skylark.Pair("sum", fmt.Sprint(sum))), nil
	}
	if text, is := data["set"]; is {
		if err := kv.Set("k", []byte(text), 10); err != nil {
			return handler.Refuse("409", name(err)), nil
		}
	}
	if _, is := data["delete"]; is {
		if err := kv.Delete("k"); err != nil {
			return handler.Reply{}, err
		}
	}
	value, is := kv.Get("k")
	if !is {
		value = []byte("-")
	}
	return handler.Ok(skylark.Pair("value", string(value))), nil
}

// end

// example: directory
func who(data map[string]string) handler.Reply {
	known := directory.Connections(data["who"])
	device := "-"
	if len(known) > 0 {
		device = known[0].Device.Or("-")
	}
	members := directory.Members(data["room"], 0, 10)
	slices.Sort(members)
	return handler.Ok(
		skylark.Pair("online", fmt.Sprint(directory.Online(data["who"]))),
		skylark.Pair("count", fmt.Sprint(len(known))),
		skylark.Pair("device", device),
		skylark.Pair("members", strings.Join(members, ",")),
	)
}

// end

// example: crypto
func digests(data map[string]string) handler.Reply {
	key, text := []byte(data["key"]), []byte(data["text"])
	return handler.Ok(
		skylark.Pair("sha256", hex.EncodeToString(crypto.Sha256(text))),
		skylark.Pair("hmac", hex.EncodeToString(crypto.HmacSha256(key, text))),
		skylark.Pair("random", fmt.Sprint(len(crypto.Random(16)))),
	)
}

// end

// example: http
func fetch(data map[string]string) handler.Reply {
	headers := []skylark.Entry{skylark.Pair("x-asked", "6")}
	got, err := http.Send(http.Request{Method: "GET", Url: data["url"], Headers: headers, TimeoutMs: skylark.Some(uint32(2000))})
	if err != nil {
		return handler.Refuse("502", name(err))
	}
	shown, is := skylark.Find(got.Headers, "x-shown")
	if !is {
		shown = "-"
	}
	status := skylark.Pair("status", fmt.Sprint(got.Status))
	return handler.Ok(status, skylark.Pair("shown", shown), skylark.Pair("body", string(got.Body)))
}

// end

// example: login
func bind(data map[string]string) handler.Reply {
	cid, _ := strconv.ParseUint(data["cid"], 10, 64)
	err := login.Bind(cid, login.Account{
		Uid:     data["uid"],
		Device:  skylark.Some("desk"),
		Channel: skylark.Some("web"),
		Rooms:   []string{"a"},
		Expires: skylark.Some(clock.Now()/1000 + 60),
	})
	if err != nil {
		return handler.Refuse("409", name(err))
	}
	return handler.Ok()
}

// end

// example: timers
func timer(data map[string]string) handler.Reply {
	var err error
	if cancel, is := data["cancel"]; is {
		err = timers.Cancel(cancel)
	} else {
		after, _ := strconv.ParseUint(data["after"], 10, 64)
		err = timers.Start(data["name"], after, []byte(data["data"]))
	}
	if err != nil {
		return handler.Refuse("409", name(err))
	}
	return handler.Ok()
}

func onTimer(name string, data []byte) {
	if name == "trap" {
		trap()
	}
	tell("timer", skylark.Pair("name", name), skylark.Pair("data", string(data)))
}

// end

// example: history
func read(data map[string]string) handler.Reply {
	number := func(key string) uint64 {
		value, _ := strconv.ParseUint(data[key], 10, 64)
		return value
	}
	stream := skylark.EveryoneStream()
	if room, is := data["room"]; is {
		stream = skylark.RoomStream(room)
	}
	var page history.Page
	var err error
	if epoch, is := data["epoch"]; is {
		after := history.Position{Epoch: epoch, Offset: number("offset"), Id: int64(number("id"))}
		page, err = history.After(stream, after, uint32(number("limit")))
	} else {
		page, err = history.Latest(stream, uint32(number("limit")))
	}
	if err != nil {
		return handler.Refuse("409", name(err))
	}
	top, err := history.PositionOf(stream)
	if err != nil {
		return handler.Refuse("409", name(err))
	}
	shown := make([]string, len(page.Messages))
	for i, kept := range page.Messages {
		shown[i] = fmt.Sprintf("%d=%s", kept.Offset, kept.Message.Action)
	}
	missed := "-"
	if reason, is := page.Missed.Get(); is {
		missed = history.Name(reason)
	}
	return handler.Ok(
		skylark.Pair("top", fmt.Sprintf("%s:%d:%d", top.Epoch, top.Offset, top.Id)),
		skylark.Pair("messages", strings.Join(shown, ",")),
		skylark.Pair("missed", missed),
	)
}

// end

// example: receipts
func resumed(who skylark.Identity, streams []receipts.Stream) {
	shown := make([]string, len(streams))
	for i, one := range streams {
		count := "-"
		if number, is := one.Count.Get(); is {
			count = fmt.Sprint(number)
		}
		shown[i] = fmt.Sprintf("%s=%t:%s", skylark.StreamText(one.Name), one.Recovered, count)
	}
	tell("receipt", skylark.Pair("receipt", "resumed"), skylark.Pair("uid", who.Uid),
		skylark.Pair("streams", strings.Join(shown, ",")))
}

func undelivered(uid string, id int64, cause string) {
	tell("receipt", skylark.Pair("receipt", "undelivered"), skylark.Pair("uid", uid),
		skylark.Pair("id", fmt.Sprint(id)), skylark.Pair("cause", cause))
}

// end

func onEvent(event events.Event) {
	switch event.Tag() {
	case events.Online:
		happened("online", event.Online().Uid, "-")
	case events.Offline:
		happened("offline", event.Offline().Uid, "-")
	case events.RoomJoined:
		change := event.RoomJoined()
		happened("room-joined", change.Who.Uid, change.Room)
	case events.RoomLeft:
		change := event.RoomLeft()
		happened("room-left", change.Who.Uid, change.Room)
	}
}

func happened(what, uid, room string) {
	tell("event", skylark.Pair("event", what), skylark.Pair("uid", uid), skylark.Pair("room", room))
}

func tell(action string, content ...skylark.Entry) {
	err := outbox.Push(skylark.ToRoom("events"), skylark.Message{Action: action, Content: content})
	if err != nil {
		log.Error(name(err))
	}
}

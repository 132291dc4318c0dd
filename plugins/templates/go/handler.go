// Answers the key "greet", and counts the greetings of each user.
package main

import (
	"strconv"

	"skylark"
	"skylark/handler"
	"skylark/kv"
)

func main() {}

func init() {
	handler.Keys = []string{"greet"}
	handler.Handle = greet
}

func greet(asked handler.Call) (handler.Reply, error) {
	caller, isBound := asked.Caller.Get()
	if !isBound {
		return handler.Refuse("401", "who are you?"), nil
	}
	key := "greeted:" + caller.Uid
	before, _ := kv.Get(key)
	count, _ := strconv.Atoi(string(before))
	times := strconv.Itoa(count + 1)
	if err := kv.Set(key, []byte(times), kv.Forever); err != nil {
		return handler.Reply{}, err
	}
	return handler.Ok(skylark.Pair("greeting", "hello, "+caller.Uid), skylark.Pair("times", times)), nil
}

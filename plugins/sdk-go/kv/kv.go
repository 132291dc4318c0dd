// Package kv keeps small state of the plugin: it survives reload, and all instances see it. Writes are committed with the call. Grant: kv.
package kv

import (
	"skylark"
	"skylark/internal/values"
	wit "skylark/internal/wit/skylark_plugin_kv"
)

// Forever is the time to live of what stays until it is deleted.
const Forever = 0

// Get gives what the key holds, and whether it holds anything.
func Get(key string) ([]byte, bool) { return wit.Get(key).Get() }

// Set writes the value for so many seconds, or Forever.
func Set(key string, value []byte, seconds uint32) error {
	return told(wit.Set(key, value, ttl(seconds)))
}

// Delete forgets the key.
func Delete(key string) error { return told(wit.Delete(key)) }

// CompareAndSwap writes only if the key holds what is expected (None: nothing), and says whether it did.
func CompareAndSwap(key string, expected skylark.Option[[]byte], value []byte, seconds uint32) (bool, error) {
	result := wit.CompareAndSwap(key, expected, value, ttl(seconds))
	if result.Tag() == values.ResultOk {
		return result.Ok(), nil
	}
	return false, failed(result.Err())
}

// Add adds to the number that the key holds (nothing = 0) and gives the sum.
func Add(key string, amount int64, seconds uint32) (int64, error) {
	result := wit.Add(key, amount, ttl(seconds))
	if result.Tag() == values.ResultOk {
		return result.Ok(), nil
	}
	switch err := result.Err(); err.Tag() {
	case wit.AddErrorTooLarge:
		return 0, &skylark.Error{Name: "too-large"}
	case wit.AddErrorReadOnly:
		return 0, &skylark.Error{Name: "read-only"}
	default:
		return 0, &skylark.Error{Name: "not-a-number"}
	}
}

func ttl(seconds uint32) values.Option[uint32] {
	if seconds == Forever {
		return values.None[uint32]()
	}
	return values.Some(seconds)
}

func told(result values.Result[values.Unit, wit.Error]) error {
	if result.Tag() == values.ResultOk {
		return nil
	}
	return failed(result.Err())
}

func failed(err wit.Error) error {
	if err.Tag() == wit.ErrorTooLarge {
		return &skylark.Error{Name: "too-large"}
	}
	return &skylark.Error{Name: "read-only"}
}

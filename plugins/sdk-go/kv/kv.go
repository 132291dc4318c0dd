// Package kv keeps small state of the plugin across reloads, shared by all instances. Writes are committed with the
// call. Grant: kv.
package kv

import (
	"skylark"
	"skylark/internal/values"
	wit "skylark/internal/wit/skylark_plugin_kv"
)

// Forever is the time to live of a value that stays until it is deleted.
const Forever = 0

// Get returns the value of the key, and true if there is one.
func Get(key string) ([]byte, bool) { return wit.Get(key).Get() }

// Set writes a value that expires after this many seconds, or never with Forever.
func Set(key string, value []byte, seconds uint32) error {
	return told(wit.Set(key, value, ttl(seconds)))
}

// Delete deletes the key.
func Delete(key string) error { return told(wit.Delete(key)) }

// CompareAndSwap writes only if the key holds the expected value (None: the key is absent), and returns true if it
// wrote.
func CompareAndSwap(key string, expected skylark.Option[[]byte], value []byte, seconds uint32) (bool, error) {
	result := wit.CompareAndSwap(key, expected, value, ttl(seconds))
	if result.Tag() == values.ResultOk {
		return result.Ok(), nil
	}
	return false, failed(result.Err())
}

// Add adds to the number that the key holds (absent = 0) and returns the sum.
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

// Package settings reads the [settings] table of the plugin's manifest. Needs no grant.
package settings

import wit "skylark/internal/wit/skylark_plugin_settings"

// Get returns one value, and true if there is one: a string unchanged, any other value as JSON.
func Get(key string) (string, bool) { return wit.Get(key).Get() }

// Text returns one value, or the fallback if there is none.
func Text(key, fallback string) string { return wit.Get(key).Or(fallback) }

// JSON is the whole table as a JSON object.
func JSON() string { return wit.Json() }

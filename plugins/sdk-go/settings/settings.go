// Package settings reads the [settings] of the plugin's manifest. Needs no grant.
package settings

import wit "skylark/internal/wit/skylark_plugin_settings"

// Get gives one value, and whether there is one: a text as it is, anything else as JSON.
func Get(key string) (string, bool) { return wit.Get(key).Get() }

// Text gives one value, or what stands in its place.
func Text(key, fallback string) string { return wit.Get(key).Or(fallback) }

// JSON is the whole table as a JSON object.
func JSON() string { return wit.Json() }

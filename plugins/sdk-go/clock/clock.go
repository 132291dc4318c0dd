// Package clock tells the time, as the package time does. Needs no grant.
package clock

import wit "skylark/internal/wit/skylark_plugin_clock"

// Now is in milliseconds since 1970.
func Now() uint64 { return wit.Now() }

// Monotonic is in nanoseconds since some start, never going back.
func Monotonic() uint64 { return wit.Monotonic() }

// Package clock gives the time, like the package time. Needs no grant.
package clock

import wit "skylark/internal/wit/skylark_plugin_clock"

// Now returns milliseconds since 1970.
func Now() uint64 { return wit.Now() }

// Monotonic returns nanoseconds since an arbitrary start; never decreases.
func Monotonic() uint64 { return wit.Monotonic() }

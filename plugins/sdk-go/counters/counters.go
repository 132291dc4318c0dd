// Package counters counts over a sliding window, for rate rules: the one state that a filter may change. Grant: counters.
package counters

import wit "skylark/internal/wit/skylark_plugin_counters"

// AddAndRead adds and gives what was counted in the last so many seconds, this included; an amount of 0 only reads.
func AddAndRead(name string, windowSeconds, amount uint32) uint64 {
	return wit.AddAndRead(name, windowSeconds, amount)
}

// Package counters counts over a sliding window, for rate limits. It is the only state that a filter may change. Grant:
// counters.
package counters

import wit "skylark/internal/wit/skylark_plugin_counters"

// AddAndRead adds the amount and returns the count over the last windowSeconds seconds, including it; an amount of 0
// only reads.
func AddAndRead(name string, windowSeconds, amount uint32) uint64 {
	return wit.AddAndRead(name, windowSeconds, amount)
}

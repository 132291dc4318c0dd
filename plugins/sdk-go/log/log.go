// Package log writes lines to the node's log; capped per call. Needs no grant.
package log

import wit "skylark/internal/wit/skylark_plugin_log"

// Debug is for who looks for a fault.
func Debug(line string) { wit.Write(wit.LevelDebug, line) }

// Info is for what is worth knowing.
func Info(line string) { wit.Write(wit.LevelInfo, line) }

// Warn is for what should not be.
func Warn(line string) { wit.Write(wit.LevelWarn, line) }

// Error is for what must not be.
func Error(line string) { wit.Write(wit.LevelError, line) }

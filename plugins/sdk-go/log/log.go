// Package log writes lines to the node's log, limited per call. Needs no grant.
package log

import wit "skylark/internal/wit/skylark_plugin_log"

// Debug writes a line for debugging.
func Debug(line string) { wit.Write(wit.LevelDebug, line) }

// Info writes a line for the operator.
func Info(line string) { wit.Write(wit.LevelInfo, line) }

// Warn writes a line about an unexpected condition that the plugin handled.
func Warn(line string) { wit.Write(wit.LevelWarn, line) }

// Error writes a line about a failure.
func Error(line string) { wit.Write(wit.LevelError, line) }

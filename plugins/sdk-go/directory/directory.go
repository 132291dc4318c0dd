// Package directory knows who is online, on which device, in which room. Grant: directory.
package directory

import wit "skylark/internal/wit/skylark_plugin_directory"

// Presence is one connection of a user.
type Presence = wit.Presence

// Online says whether the user has at least one connection.
func Online(uid string) bool { return wit.Online(uid) }

// Connections are the user's.
func Connections(uid string) []Presence { return wit.Connections(uid) }

// Members are users in a room from offset on, at most 1 000 a call, in no promised order.
func Members(room string, offset, limit uint32) []string { return wit.Members(room, offset, limit) }

// Devices are those on which the user is online, each once, sorted.
func Devices(uid string) []string { return wit.Devices(uid) }

// Rooms are those that one of the user's connections is in, each once, sorted.
func Rooms(uid string) []string { return wit.Rooms(uid) }

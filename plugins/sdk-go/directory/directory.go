// Package directory lists online users with their devices and rooms. Grant: directory.
package directory

import wit "skylark/internal/wit/skylark_plugin_directory"

// Presence is one connection of a user.
type Presence = wit.Presence

// Online is true if the user has at least one connection.
func Online(uid string) bool { return wit.Online(uid) }

// Connections returns the connections of the user.
func Connections(uid string) []Presence { return wit.Connections(uid) }

// Members returns users in a room, starting at offset, at most 1 000 a call, in no defined order.
func Members(room string, offset, limit uint32) []string { return wit.Members(room, offset, limit) }

// Devices returns the devices on which the user is online, sorted, without duplicates.
func Devices(uid string) []string { return wit.Devices(uid) }

// Rooms returns the rooms that the user's connections are in, sorted, without duplicates.
func Rooms(uid string) []string { return wit.Rooms(uid) }

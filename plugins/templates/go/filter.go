// Rejects messages with the word of the settings in the title or the text.
package main

import (
	"strings"

	"skylark"
	"skylark/filter"
	"skylark/publication"
	"skylark/settings"
)

func main() {}

func init() { filter.Judge = judge }

func judge() filter.Verdict {
	word := settings.Text("word", "gossip")
	text, _ := skylark.Find(publication.Content(), "text")
	if strings.Contains(publication.Title(), word) || strings.Contains(text, word) {
		return filter.Reject("403", "no "+word+" here")
	}
	return filter.Allow()
}

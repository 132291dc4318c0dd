// Package publishers names what the Go snippets of docs/intakes.md import, so that it is fetched and compiled before.
package publishers

import (
	_ "github.com/redis/go-redis/v9"
	_ "github.com/twmb/franz-go/pkg/kgo"
)

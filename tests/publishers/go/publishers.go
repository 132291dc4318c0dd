// Package publishers imports the packages of the Go snippets in docs/guides/push-by-redis-or-kafka.md, so that they are
// compiled in advance.
package publishers

import (
	_ "github.com/redis/go-redis/v9"
	_ "github.com/twmb/franz-go/pkg/kgo"
)

package neighbours

import (
	"errors"
	"sync"
	"time"
)

const fixed = 1

var (
	registry = map[string]time.Time{}
	errGone  = errors.New("gone")
)

type locked struct{ sync.Mutex }

type limits struct{ max int }

func (limits) lookUp() time.Time { return time.Now() }

type box[T any] struct{ value T }

func (b box[T]) get() T { return b.value }

func generic[T any](t T) T { return t }

func helper() { go sibling() }

package fencetest_test

import (
	"context"
	"sync"
	"testing"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/fencetest"
)

// table is a storage that keeps one floor, under a lock that is held while it writes.
type table struct {
	mu    sync.Mutex
	floor map[string]fence.Token
}

func (s *table) write(_ context.Context, resource string, token fence.Token, store func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !token.Valid():
		return fence.ErrInvalidToken
	case token < s.floor[resource]:
		return fence.ErrStale
	}
	s.floor[resource] = token
	store()
	return nil
}

func ExampleRun() {
	// In a test file, func TestTable(t *testing.T):
	test := func(t *testing.T) {
		fencetest.Run(t, fencetest.Config{Open: func(*testing.T) fencetest.Guard {
			return fencetest.GuardFunc((&table{floor: make(map[string]fence.Token)}).write)
		}})
	}
	_ = test
}

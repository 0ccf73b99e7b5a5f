package singletontest_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/singleton"
	"github.com/writ-io/writ/singleton/singletontest"
)

// ledger is a storage that compares tokens.
type ledger struct{ floor fence.Token }

func (l *ledger) write(ctx context.Context) error {
	term, ok := singleton.FromContext(ctx)
	switch {
	case !ok:
		return fence.ErrNoCredential
	case term.Token < l.floor:
		return fence.ErrStale
	}
	l.floor = term.Token
	return nil
}

// A program's job is run by two processes, one of which is paused while it works.
func Example() {
	t, stop := newT() // in a test: its *testing.T
	defer stop()

	quorum := singletontest.New(t, singletontest.Config{})
	eu, us := quorum.Process("eu-1", "eu"), quorum.Process("us-1", "us")
	var books ledger

	err := eu.Singleton(singleton.Config{}).Try(t.Context(), "billing", func(ctx context.Context) error {
		fmt.Println("eu writes:", books.write(ctx))
		eu.Pause()
		quorum.Expire("billing")
		err := us.Singleton(singleton.Config{}).Run(t.Context(), "billing", func(ctx context.Context) error {
			fmt.Println("us writes:", books.write(ctx))
			return nil
		})
		if err != nil {
			return err
		}
		fmt.Println("the context in eu has ended:", ctx.Err() != nil)
		err = books.write(ctx)
		fmt.Println("eu writes:", err)
		eu.Resume()
		return err
	})
	fmt.Println("the job in eu was refused:", errors.Is(err, fence.ErrStale))
	// Output:
	// eu writes: <nil>
	// us writes: <nil>
	// the context in eu has ended: false
	// eu writes: fence: stale token
	// the job in eu was refused: true
}

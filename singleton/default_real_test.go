package singleton_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/singleton"
)

// Run and Try of the package reach a real quorum by nothing but the environment, share one client while they run, and leave
// none behind.
func TestTheProcesssOwnClientOnARealQuorum(t *testing.T) {
	t.Setenv("WRIT_ENDPOINTS", strings.Join(realQuorum(t), ","))
	t.Setenv("WRIT_INSECURE", "true")
	t.Setenv("WRIT_REGION", "eu")
	failure := errors.New("failure")
	terms := make(map[string]singleton.Term)
	note := func(ctx context.Context, name string) {
		term, ok := singleton.FromContext(ctx)
		if !ok || term.Holder.Region != "eu" {
			t.Errorf("%s runs in the term %+v, %v", name, term, ok)
		}
		if write, ok := fence.FromContext(ctx); !ok || write.Token != term.Token {
			t.Errorf("%s presents %+v, %v, under %v", name, write, ok, term.Token)
		}
		terms[name] = term
	}

	err := singleton.Run(t.Context(), "orders/first", func(ctx context.Context) error {
		note(ctx, "outer")
		var held *lease.Error
		err := singleton.Try(ctx, "orders/first", func(context.Context) error { t.Error("two run at a time"); return nil })
		if !errors.As(err, &held) || held.Reason != lease.ReasonHeld || held.Holder.Instance != terms["outer"].Holder.Instance {
			t.Errorf("asking for what is held: %v", err)
		}
		if err := singleton.Try(ctx, "orders/second", func(ctx context.Context) error { note(ctx, "inner"); return nil }); err != nil {
			t.Errorf("asking for what is free: %v", err)
		}
		if err := singleton.Checkpoint(ctx, []byte("42")); err != nil { // the client is open still
			t.Error(err)
		}
		return failure
	})
	if !errors.Is(err, failure) {
		t.Errorf("returned %v, not what the function did", err)
	}
	// It was released, so that it can be had at once, and the checkpoint is there.
	err = singleton.Try(t.Context(), "orders/first", func(ctx context.Context) error { note(ctx, "later"); return nil })
	if err != nil {
		t.Fatal(err)
	}
	outer, inner, later := terms["outer"], terms["inner"], terms["later"]
	if inner.Holder.Instance != outer.Holder.Instance {
		t.Errorf("two clients were open at a time: %v, %v", outer.Holder, inner.Holder)
	}
	if later.Holder.Instance == outer.Holder.Instance {
		t.Errorf("the client of %v was not closed when nothing ran any more", outer.Holder)
	}
	if later.Token <= outer.Token || string(later.Checkpoint) != "42" {
		t.Errorf("after %v and its checkpoint came %v with %q", outer.Token, later.Token, later.Checkpoint)
	}

	// The end of the context ends Run, whether or not it holds.
	ctx, cancel := context.WithCancelCause(t.Context())
	err = singleton.Run(ctx, "orders/first", func(ctx context.Context) error {
		cancel(failure)
		<-ctx.Done()
		return context.Cause(ctx)
	})
	if !errors.Is(err, failure) {
		t.Errorf("ended with %v", err)
	}
}

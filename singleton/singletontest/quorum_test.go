package singletontest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock/bubble"
	"github.com/writ-io/writ/singleton/singletontest"
)

const ttl = 10 * time.Second

func acquire(t *testing.T, p *singletontest.Process, resource string, o lease.AcquireOptions) *lease.Hold {
	t.Helper()
	o.TTL = ttl
	hold, err := p.Client().Acquire(t.Context(), resource, o)
	if err != nil {
		t.Fatal(err)
	}
	return hold
}

// acquiring acquires in the background.
func acquiring(t *testing.T, p *singletontest.Process, resource string, o lease.AcquireOptions) <-chan *lease.Hold {
	t.Helper()
	granted := make(chan *lease.Hold, 1)
	go func() {
		o.TTL = ttl
		hold, err := p.Client().Acquire(t.Context(), resource, o)
		if err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
		granted <- hold
	}()
	return granted
}

func TestItDecidesByTheRealTable(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		q := singletontest.New(t, singletontest.Config{Policy: lease.Policy{Rules: []lease.PolicyRule{{Prefix: "short/", MaxTTL: time.Second}}}})
		a, b, c := q.Process("a", "eu"), q.Process("b", "us"), q.Process("c", "ap")
		if _, err := a.Client().Acquire(t.Context(), "short/x", lease.AcquireOptions{TTL: ttl}); !errors.Is(err, lease.ErrInvalid) {
			t.Errorf("beyond the policy: %v", err)
		}
		hold := acquire(t, a, "r", lease.AcquireOptions{})
		low := acquiring(t, b, "r", lease.AcquireOptions{})
		q.Advance(time.Second)
		high := acquiring(t, c, "r", lease.AcquireOptions{Priority: 5})
		q.Advance(ttl)
		select {
		case <-hold.Contended():
		default:
			t.Error("the holder is not told of a higher priority")
		}
		if err := hold.Checkpoint(t.Context(), []byte("17")); err != nil {
			t.Fatal(err)
		}
		commits := q.Commits()
		if err := hold.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		next := <-high
		if q.Commits() != commits+1 || next.Token() <= hold.Token() || string(next.CheckpointData()) != "17" {
			t.Errorf("%d commits, token %v after %v, checkpoint %q", q.Commits()-commits, next.Token(), hold.Token(), next.CheckpointData())
		}
		if err := next.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		last := <-low
		if info := q.Info("r"); info.Holder.Instance != "b" || info.Token != last.Token() || string(info.Checkpoint) != "17" {
			t.Errorf("%+v", info)
		}
		if held := q.Held(""); len(held) != 1 || held[0].Resource != "r" {
			t.Errorf("held: %+v", held)
		}
	})
}

func TestAPausedProcessIsAZombie(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		q := singletontest.New(t, singletontest.Config{})
		a, b := q.Process("a", "eu"), q.Process("b", "us")
		zombie := acquire(t, a, "r", lease.AcquireOptions{})
		granted := acquiring(t, b, "r", lease.AcquireOptions{})
		q.Advance(time.Second)
		a.Pause()
		q.Advance(time.Minute)
		next := <-granted
		if !zombie.Valid() || zombie.Err() != nil || next.Token() <= zombie.Token() {
			t.Errorf("the zombie under %v is over because of %v, next has %v", zombie.Token(), zombie.Err(), next.Token())
		}
		a.Resume()
		q.Advance(0)
		var lost *lease.LostError
		if !errors.As(zombie.Err(), &lost) || zombie.Valid() {
			t.Errorf("it wakes up and is over because of %v", zombie.Err())
		}
		if !next.Valid() {
			t.Error("the other one has lost it")
		}
	})
}

func TestAPartitionEndsBeliefBeforeTheGrantOfAnother(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		q := singletontest.New(t, singletontest.Config{})
		a, b := q.Process("a", "eu"), q.Process("b", "us")
		hold := acquire(t, a, "r", lease.AcquireOptions{})
		granted := acquiring(t, b, "r", lease.AcquireOptions{})
		q.Advance(time.Minute)
		a.Partition()
		select {
		case <-hold.Done():
		case <-granted:
			t.Error("granted while the former holder believes")
		}
		<-granted
		a.Heal()
		again := acquiring(t, a, "r", lease.AcquireOptions{})
		q.Advance(time.Minute)
		q.Expire("r")
		q.Advance(ttl)
		if h := <-again; !h.Valid() {
			t.Error("a healed process is granted nothing")
		}
	})
}

func TestExpireAndSteal(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		q := singletontest.New(t, singletontest.Config{})
		a, b := q.Process("a", "eu"), q.Process("b", "us")
		hold := acquire(t, a, "r", lease.AcquireOptions{})
		other := acquire(t, a, "other", lease.AcquireOptions{})
		granted := acquiring(t, b, "r", lease.AcquireOptions{Priority: 10})
		q.Advance(time.Millisecond)
		if token := q.Expire("r"); token != hold.Token() {
			t.Errorf("%v has expired instead of %v", token, hold.Token())
		}
		next := <-granted
		if !hold.Valid() {
			t.Error("the holder knows before it could have heard")
		}
		<-hold.Done()
		var lost *lease.LostError
		if !errors.As(hold.Err(), &lost) || lost.Cause != lease.LostEnded {
			t.Errorf("over because of %v", hold.Err())
		}
		waiter := acquiring(t, a, "r", lease.AcquireOptions{Priority: 10})
		q.Advance(time.Millisecond)
		token := q.Steal("r")
		if info := q.Info("r"); token <= next.Token() || info.Token != token || info.Holder.Principal != singletontest.Thief {
			t.Errorf("%v was stolen as %v: %+v", next.Token(), token, info)
		}
		<-next.Done()
		if h := <-waiter; h.Token() <= token {
			t.Errorf("after the theft %v is granted", h.Token())
		}
		if !other.Valid() {
			t.Error("another resource has suffered")
		}
		if token := q.Steal("free"); q.Info("free").Token != token {
			t.Errorf("a free resource: %+v", q.Info("free"))
		}
	})
}

func TestWritsAreSigned(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		q := singletontest.New(t, singletontest.Config{})
		hold := acquire(t, q.Process("a", "eu"), "r", lease.AcquireOptions{})
		compact, err := hold.Writ(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		writ, err := q.Keys().Verify(compact)
		if err != nil || writ.Token != hold.Token() || writ.Resource != "r" || writ.Region != "eu" {
			t.Errorf("%+v, %v", writ, err)
		}
	})
}

func TestWatchesSeeExpiryAndForgetting(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		q := singletontest.New(t, singletontest.Config{})
		a, b := q.Process("a", "eu"), q.Process("b", "us")
		acquire(t, a, "x/1", lease.AcquireOptions{})
		acquire(t, a, "y/1", lease.AcquireOptions{})
		ctx, cancel := context.WithCancel(t.Context())
		events := make(chan lease.WatchEvent)
		go func() {
			defer close(events)
			for event, err := range b.Client().Watch(ctx, lease.WatchOptions{Prefix: "x/"}) {
				if err != nil {
					return
				}
				events <- event
			}
		}()
		want := func(kind lease.EventKind, state lease.State) {
			t.Helper()
			if e := <-events; e.Kind != kind || e.Info.State != state {
				t.Errorf("%v %+v, want %v %v", e.Kind, e.Info, kind, state)
			}
		}
		want(lease.EventState, lease.Held)
		want(lease.EventSynced, 0)
		a.Partition()
		want(lease.EventChanged, lease.Free)
		want(lease.EventRemoved, lease.Free)
		cancel()
		for range events {
			t.Error("an event after the end")
		}
		if info := q.Info("x/1"); info.Token != fence.Token(0) {
			t.Errorf("%+v", info)
		}
	})
}

func TestAJumpOfTheTimeOfDay(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		q := singletontest.New(t, singletontest.Config{})
		a := q.Process("a", "")
		hold := acquire(t, a, "r", lease.AcquireOptions{})
		q.Advance(time.Second)
		before := a.Calls("Renew")
		a.JumpClock(time.Hour)
		if hold.Valid() {
			t.Error("believed although the clock may have missed an hour")
		}
		q.Advance(time.Second)
		if !hold.Valid() || a.Calls("Renew") == before {
			t.Errorf("%v after %d renewals", hold.Err(), a.Calls("Renew")-before)
		}
	})
}

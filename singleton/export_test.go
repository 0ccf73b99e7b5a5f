package singleton

import (
	"context"
	"testing"
	"time"

	"github.com/writ-io/writ/singleton/partition"
)

// SetExit exchanges what ends the process.
func SetExit(s *Singleton, exit func(code int)) { s.exit = exit }

// ReleaseAndAsk carries out what a member is told that hears in one step that the lease of partition 0 was lost, that its
// function has returned, and that the partition is free; and then that it is to release what it asked for. It tells whether the
// worker of either was told.
func ReleaseAndAsk(ctx context.Context, s *Singleton, group string) (before, after bool, err error) {
	g, err := s.newConsumer(group, 1, func(context.Context, *Partition) error { return nil }, nil)
	if err != nil {
		return false, false, err
	}
	old := &consumeWorker{release: make(chan struct{})}
	g.workers[0] = old
	g.apply(ctx, partition.Effects{Ask: []int{0}, Release: []int{0}})
	g.apply(ctx, partition.Effects{Release: []int{0}})
	asked := g.workers[0]
	g.running.Wait()
	return isClosed(old.release), isClosed(asked.release), nil
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// WakeAfter has a job woken when so much of the day has passed. It returns where that shows, and how to let the job go.
func WakeAfter(t *testing.T, s *Singleton, in time.Duration) (woken <-chan struct{}, leave func()) {
	b := newCronBoard(s)
	j := &cronJob{name: "job", board: b, poke: make(chan struct{}, 1)}
	if err := b.join(j); err != nil {
		t.Fatal(err)
	}
	b.arm(j, s.client.Clock().Wall().Add(in))
	return j.poke, func() { b.leave(j) }
}

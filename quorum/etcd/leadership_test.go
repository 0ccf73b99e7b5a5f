package etcd

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"

	"github.com/writ-io/writ/lease/clock/bubble"
)

// fakeRaft is member 1 of a cluster whose leader the test sets. Like etcd it signals a new leader only.
type fakeRaft struct {
	mu      sync.Mutex
	leader  types.ID      // guarded by mu
	changed chan struct{} // guarded by mu
}

func (f *fakeRaft) MemberID() types.ID { return 1 }

func (f *fakeRaft) Leader() types.ID {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.leader
}

func (f *fakeRaft) LeaderChangedNotify() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

func (f *fakeRaft) set(leader types.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	elected := leader != 0 && leader != f.leader
	f.leader = leader
	if elected {
		close(f.changed)
		f.changed = make(chan struct{})
	}
}

func TestLeadershipNoticesEveryChange(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		const beat = 100 * time.Millisecond
		raft := &fakeRaft{changed: make(chan struct{})}
		l := newLeadership(raft)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { l.run(ctx, beat) })
		for _, step := range []struct {
			name   string
			leader types.ID
			want   bool
		}{
			{"won", 1, true},
			{"lost to nobody, which etcd does not signal", 0, false},
			{"won again", 1, true},
			{"lost to another", 2, false},
			{"another to nobody", 0, false},
			{"won once more", 1, true},
		} {
			before, changed := l.state()
			synctest.Wait()
			raft.set(step.leader)
			start := time.Now()
			if before != step.want || step.leader == 1 {
				<-changed
			}
			if took := time.Since(start); took > beat {
				t.Errorf("%s: noticed after %v", step.name, took)
			}
			if leads, _ := l.state(); leads != step.want {
				t.Errorf("%s: leads is %v", step.name, leads)
			}
		}
		_, changed := l.state()
		cancel()
		<-changed
		running.Wait()
		if leads, _ := l.state(); leads {
			t.Error("leads after the end")
		}
	})
}

// Another member may have led between two looks: whoever waits must look again.
func TestLeadershipSignalsAnInterregnum(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		raft := &fakeRaft{changed: make(chan struct{})}
		l := newLeadership(raft)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { l.run(ctx, time.Hour) })
		raft.set(1)
		synctest.Wait()
		leads, changed := l.state()
		if !leads {
			t.Fatal("does not lead")
		}
		raft.set(2)
		raft.set(1)
		<-changed
		if leads, _ := l.state(); !leads {
			t.Error("does not lead")
		}
		cancel()
		running.Wait()
	})
}

// The answer and the channel belong together: a change after the answer closes the channel.
func TestLeadershipAnswersAreFresh(t *testing.T) {
	raft := &fakeRaft{changed: make(chan struct{})}
	l := newLeadership(raft) // not run: state looks of itself
	raft.set(1)
	if leads, _ := l.state(); !leads {
		t.Error("stale: does not lead")
	}
	_, changed := l.state()
	raft.set(0)
	if leads, _ := l.state(); leads {
		t.Error("stale: leads")
	}
	select {
	case <-changed:
	default:
		t.Error("the older channel does not tell")
	}
}

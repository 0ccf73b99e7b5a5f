package etcd

import (
	"context"
	"sync"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
)

// raftLeader is what leadership needs of etcd.
type raftLeader interface {
	MemberID() types.ID
	Leader() types.ID
	LeaderChangedNotify() <-chan struct{}
}

// leadership follows whether this member leads. etcd signals a new leader but not the loss of one, so beside its signal
// leadership looks once a heartbeat.
type leadership struct {
	server raftLeader

	mu      sync.Mutex
	leads   bool          // as last published; guarded by mu
	ended   bool          // the member stops: it leads no more; guarded by mu
	changed chan struct{} // closed when leads may have changed; guarded by mu
}

func newLeadership(server raftLeader) *leadership {
	return &leadership{server: server, changed: make(chan struct{})}
}

// state answers whether this member leads and a channel that is closed when that may have changed.
func (l *leadership) state() (leads bool, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.look(false)
	return l.leads, l.changed
}

// look publishes a change. mu is held.
func (l *leadership) look(force bool) {
	leads := !l.ended && l.server.Leader() == l.server.MemberID()
	if leads != l.leads || force {
		l.leads = leads
		close(l.changed)
		l.changed = make(chan struct{})
	}
}

// run follows the leader until ctx ends, and then gives leadership up.
func (l *leadership) run(ctx context.Context, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		elected := l.server.LeaderChangedNotify() // before the look, so that no change falls between
		l.mu.Lock()
		l.look(false)
		l.mu.Unlock()
		select {
		case <-elected:
			// Another member may have led since the last look, even if this one leads again.
			l.mu.Lock()
			l.look(true)
			l.mu.Unlock()
		case <-ticker.C:
		case <-ctx.Done():
			l.mu.Lock()
			l.ended = true
			l.look(true)
			l.mu.Unlock()
			return
		}
	}
}

// Leadership answers whether this member is the raft leader, and a channel that is closed when that may have changed.
// The loss of a leader without a new one is noticed within a heartbeat.
func (m *Member) Leadership() (leader bool, changed <-chan struct{}) { return m.leader.state() }

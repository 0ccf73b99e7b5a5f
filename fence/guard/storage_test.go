package guard_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/gate"
	"github.com/writ-io/writ/fence/guard"
)

// table is a storage that compares tokens by itself.
type table struct {
	mu     sync.Mutex
	floors map[string]fence.Token
	calls  [][]gate.Floor
	fail   error
	slow   time.Duration
}

func (s *table) Raise(ctx context.Context, floors []gate.Floor) error {
	s.mu.Lock()
	slow, fail := s.slow, s.fail
	s.calls = append(s.calls, slices.Clone(floors))
	s.mu.Unlock()
	if slow > 0 {
		select {
		case <-time.After(slow):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if fail != nil {
		return fail
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range floors {
		s.floors[f.Resource] = max(s.floors[f.Resource], f.Token)
	}
	return nil
}

func (s *table) floor(resource string) fence.Token {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.floors[resource]
}

func (s *table) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// simulateStorage has a guard before a storage that compares by itself. Every acknowledgement is held against the storage.
func simulateStorage(t *testing.T, test func(*rig, *table)) {
	t.Helper()
	simulate(t, func(r *rig) {
		s := &table{floors: make(map[string]fence.Token)}
		r.config.Covers, r.config.Storage, r.config.Slack = []string{"bills", "orders"}, s, 0
		r.quorum.onAck = func(ack *writv1.GuardAck) {
			if floor := s.floor(ack.GetResource()); floor < fence.Token(ack.GetToken()) {
				t.Errorf("%s was acknowledged under %d, and the storage is at %s", ack.GetResource(), ack.GetToken(), floor)
			}
		}
		test(r, s)
	})
}

func TestStorageIsRaisedBeforeItIsAcknowledged(t *testing.T) {
	simulateStorage(t, func(r *rig, s *table) {
		r.quorum.base, r.quorum.floors["orders"] = tok(9), tok(5)
		r.startNodes()
		r.start()
		r.pass(time.Second)
		if e := r.quorum.enrols[0]; !e.GetNeverLapses() || e.GetPromise() != writv1.GuardPromise_GUARD_PROMISE_ATOMIC || e.GetSlack().AsDuration() != 100*time.Millisecond {
			t.Errorf("enrolled as %v", e)
		}
		// What is held keeps its token, however old it is; nothing below the base is granted any more of what is not.
		if s.floor("orders") != tok(5) || s.floor("bills") != tok(9) {
			t.Errorf("the storage is at %v", s.floors)
		}
		s.set(func() { s.slow = 5 * time.Second })
		r.quorum.raise("orders", tok(12))
		r.pass(4 * time.Second)
		if token, _ := r.quorum.acked("orders"); token >= tok(12) {
			t.Fatal("acknowledged before the storage has answered")
		}
		r.pass(2 * time.Second)
		if token, how := r.quorum.acked("orders"); token != tok(12) || how != writv1.GuardProof_GUARD_PROOF_ACKED {
			t.Fatalf("acknowledged %v, %v", token, how)
		}
		if last := s.calls[len(s.calls)-1]; len(last) != 1 {
			t.Errorf("raised %v for one resource", last)
		}
	})
}

func TestStorageThatCannotBeRaised(t *testing.T) {
	simulateStorage(t, func(r *rig, s *table) {
		r.ready()
		s.set(func() { s.fail = errors.New("connection refused") })
		r.quorum.raise("orders", tok(12))
		r.pass(guardLease)
		before := r.quorum.contactCount()
		r.pass(2 * guardLease)
		if token, _ := r.quorum.acked("orders"); token != 0 || r.quorum.contactCount() != before || r.guard.Status().StoreFailed != true {
			t.Fatalf("acknowledged %v, %d contacts, %+v", token, r.quorum.contactCount()-before, r.guard.Status())
		}
		s.set(func() { s.fail = nil })
		r.pass(6 * time.Second)
		if token, _ := r.quorum.acked("orders"); token != tok(12) {
			t.Fatalf("acknowledged %v", token)
		}
	})
}

// raisedAndKilled has a guard raise orders to 12, and ends its process without a word.
func raisedAndKilled(r *rig) {
	r.ready()
	r.quorum.raise("orders", tok(12))
	r.pass(time.Second)
	r.kill()
}

// What the process before did to the storage may have been undone, so it is done again; what there was under way is the storage's
// to end, so nothing is waited for. That holds for a lost file as well.
func TestStorageAfterARestart(t *testing.T) {
	for name, lost := range map[string]bool{"with its file": false, "without": true} {
		t.Run(name, func(t *testing.T) {
			simulateStorage(t, func(r *rig, s *table) {
				raisedAndKilled(r)
				s.set(func() { s.floors["orders"], s.calls = tok(1), nil })
				if lost {
					if err := os.Remove(r.config.Store); err != nil {
						t.Fatal(err)
					}
				}
				r.quorum.do(func() { r.quorum.base = tok(20) })
				r.start()
				r.pass(time.Second)
				if s.floor("orders") != tok(12) || s.floor("bills") != tok(20) {
					t.Errorf("the storage is at %v", s.floors)
				}
				r.quorum.raise("orders", tok(21))
				r.pass(time.Second)
				if token, _ := r.quorum.acked("orders"); token != tok(21) {
					t.Errorf("acknowledged %v", token)
				}
			})
		})
	}
}

// Before it has been raised to the floors that the process before has kept, nothing is said to the quorum, however long that takes.
func TestStorageIsWhereItWasBeforeTheQuorumIsSpokenTo(t *testing.T) {
	for name, hinder := range map[string]func(*table){
		"slow":   func(s *table) { s.slow = 5 * time.Second },
		"failed": func(s *table) { s.fail = errors.New("connection refused") },
	} {
		t.Run(name, func(t *testing.T) {
			simulateStorage(t, func(r *rig, s *table) {
				raisedAndKilled(r)
				s.set(func() { s.floors["orders"] = tok(1); hinder(s) })
				r.quorum.do(func() { r.quorum.base = tok(20) })
				r.start()
				r.pass(4500 * time.Millisecond)
				if n := len(r.quorum.enrols); n != 1 || r.guard.Status().Seeded {
					t.Errorf("%d enrolments, %+v", n, r.guard.Status())
				}
				s.set(func() { s.fail, s.slow = nil, 0 })
				r.pass(2 * time.Second)
				if s.floor("orders") != tok(12) || s.floor("bills") != tok(20) || len(r.quorum.enrols) != 2 || !r.guard.Status().Ready() {
					t.Errorf("the storage is at %v, %d enrolments, %+v", s.floors, len(r.quorum.enrols), r.guard.Status())
				}
			})
		})
	}
}

// A guard whose storage cannot be raised at the start can be ended.
func TestGuardEndsBeforeItsStorageIsRaised(t *testing.T) {
	simulateStorage(t, func(r *rig, s *table) {
		raisedAndKilled(r)
		s.set(func() { s.fail = errors.New("connection refused") })
		r.start()
		r.pass(2500 * time.Millisecond)
		r.close()
	})
}

func TestStorageIsRaisedForNames(t *testing.T) {
	c := guard.Config{Name: "g", Covers: []string{"orders", "bills/*"}, Store: "floors", Endpoints: []string{"a:1"}, Insecure: true, Storage: &table{}}
	if err := c.Validate(); !errors.Is(err, guard.ErrConfig) {
		t.Errorf("a prefix: %v", err)
	}
	c.Covers = c.Covers[:1]
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

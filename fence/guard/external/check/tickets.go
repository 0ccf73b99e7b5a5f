package check

import (
	"crypto/rand"
	"errors"
	"sync"
	"time"

	"github.com/writ-io/writ/fence"
)

var (
	errTooMany = errors.New("check: too many open")
	errClosed  = errors.New("check: closed")
)

// ticket is an admitted write.
type ticket struct {
	id        string
	uid       uint32
	admission fence.Admission
	ended     chan struct{} // closed at its end
	timer     *time.Timer   // ends it; nil if it is held
}

// tickets keeps what is open. Invariant: every admission that was put in is told Done exactly once.
type tickets struct {
	limit int

	mu     sync.Mutex
	idle   sync.Cond          // on mu: ending has become 0
	ending int                // guarded by mu; taken out of open and not yet told Done
	open   map[string]*ticket // guarded by mu
	perUID map[uint32]int     // guarded by mu; open, and reserved
	closed bool               // guarded by mu
}

func newTickets(limit int) *tickets {
	ts := &tickets{limit: limit, open: map[string]*ticket{}, perUID: map[uint32]int{}}
	ts.idle.L = &ts.mu
	return ts
}

// reserve makes room for a ticket, which put takes up or unreserve gives back.
func (ts *tickets) reserve(uid uint32) error {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	switch {
	case ts.closed:
		return errClosed
	case ts.perUID[uid] >= ts.limit:
		return errTooMany
	}
	ts.perUID[uid]++
	return nil
}

func (ts *tickets) unreserve(uid uint32) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.leave(uid)
}

// leave lowers the count of a user. The caller holds mu.
func (ts *tickets) leave(uid uint32) {
	if ts.perUID[uid]--; ts.perUID[uid] == 0 {
		delete(ts.perUID, uid)
	}
}

// put opens a ticket in the reserved place, for ttl or, if that is 0, until it is ended. After close, the write is told
// that it is finished, since nobody has learned of it.
func (ts *tickets) put(uid uint32, admission fence.Admission, ttl time.Duration) (*ticket, error) {
	t := &ticket{id: rand.Text(), uid: uid, admission: admission, ended: make(chan struct{})}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.closed {
		ts.leave(uid)
		admission.Done(fence.Finished)
		return nil, errClosed
	}
	if ttl > 0 {
		t.timer = time.AfterFunc(ttl, func() { ts.end(t.id, uid, fence.Broken) })
	}
	ts.open[t.id] = t
	return t, nil
}

// end ends a ticket of that user, and reports whether it was open.
func (ts *tickets) end(id string, uid uint32, outcome fence.Outcome) bool {
	ts.mu.Lock()
	t, ok := ts.open[id]
	if !ok || t.uid != uid {
		ts.mu.Unlock()
		return false
	}
	delete(ts.open, id)
	ts.leave(uid)
	ts.ending++
	ts.mu.Unlock()
	if t.timer != nil {
		t.timer.Stop()
	}
	t.admission.Done(outcome)
	close(t.ended)
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.ending--; ts.ending == 0 {
		ts.idle.Broadcast()
	}
	return true
}

// close breaks everything that is open and keeps more from being opened. When it returns, every write has been told Done.
func (ts *tickets) close() {
	ts.mu.Lock()
	ts.closed = true
	open := make([]*ticket, 0, len(ts.open))
	for _, t := range ts.open {
		open = append(open, t)
	}
	ts.mu.Unlock()
	for _, t := range open {
		ts.end(t.id, t.uid, fence.Broken)
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for ts.ending > 0 {
		ts.idle.Wait()
	}
}

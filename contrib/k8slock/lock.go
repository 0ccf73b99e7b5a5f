package k8slock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// ErrNotHeld is returned when the lock is to be taken or kept and another process holds the lease, or this one has lost it.
var ErrNotHeld = errors.New("k8slock: the Writ lease is not held")

// Lock is a resource lock of client-go that is held while a Writ lease is. It serves one loop at a time.
type Lock struct {
	client *lease.Client
	config Config
	clock  clock.Clock
	turn   chan struct{} // holds a token while no call is under way

	mu    sync.Mutex
	term  *term                                 // guarded by mu; the present leadership, nil if there is none
	bound map[*context.CancelCauseFunc]struct{} // guarded by mu; ends what runs under Bind
	reads uint64                                // guarded by mu
}

// term is one leadership.
type term struct {
	hold   *lease.Hold
	lost   error       // how the lease was lost; guarded by Lock.mu
	unhook func() bool // nobody hears of the end of the hold any more
}

var _ resourcelock.Interface = (*Lock)(nil)

// New makes a lock. The client stays the caller's to close. Errors: what [Config.Validate] finds, and INVALID for a client
// that is nil.
func New(client *lease.Client, cfg Config) (*Lock, error) {
	if client == nil {
		return nil, lease.Invalid("client", "is nil", "pass what lease.Dial returned")
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Identity == "" {
		cfg.Identity = client.Instance()
	}
	l := &Lock{client: client, config: cfg, clock: client.Clock(), turn: make(chan struct{}, 1), bound: make(map[*context.CancelCauseFunc]struct{})}
	l.turn <- struct{}{}
	return l, nil
}

// Identity returns what the records call this candidate.
func (l *Lock) Identity() string { return l.config.Identity }

// Describe returns the lease in words.
func (l *Lock) Describe() string { return "writ/" + l.config.Resource }

// Token returns the fencing token of the present leadership, 0 while there is none.
func (l *Lock) Token() fence.Token {
	if t, lost := l.present(); t != nil && lost == nil {
		return t.hold.Token()
	}
	return 0
}

// Get returns who leads as the quorum knows it. While the lease is held, every answer differs from the one before, so that
// candidates wait; once it is free, the record names nobody, so that they try at once.
func (l *Lock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	ctx, done, err := l.begin(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer done()
	info, err := l.client.Get(ctx, l.config.Resource, lease.GetOptions{})
	if errors.Is(err, lease.ErrNotFound) {
		return nil, nil, apierrors.NewNotFound(schema.GroupResource{Group: "writ.io", Resource: "leases"}, l.config.Resource)
	}
	if err != nil {
		return nil, nil, err
	}
	record := l.recordOf(info)
	raw, err := json.Marshal(struct {
		resourcelock.LeaderElectionRecord
		Read uint64 `json:"read,omitempty"`
	}{record, l.read(info.State)})
	return &record, raw, err
}

// read numbers the answers that somebody leads.
func (l *Lock) read(state lease.State) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if free(state) {
		return 0
	}
	l.reads++
	return l.reads
}

func free(state lease.State) bool { return state != lease.Held && state != lease.Ending }

// recordOf tells what is known of the lease as client-go does. The record names this candidate only while its own hold is
// valid: a process before it may have had the same identity.
func (l *Lock) recordOf(info lease.Info) resourcelock.LeaderElectionRecord {
	var record resourcelock.LeaderElectionRecord
	if json.Unmarshal(info.Metadata, &record) != nil || record.HolderIdentity == "" {
		record = resourcelock.LeaderElectionRecord{
			HolderIdentity: info.Holder.String(), LeaseDurationSeconds: int(info.TTL / time.Second), AcquireTime: metav1.NewTime(info.GrantedAt),
		}
	}
	record.RenewTime = metav1.NewTime(l.clock.Wall())
	if free(info.State) {
		record.HolderIdentity, record.RenewTime = "", record.AcquireTime
		return record
	}
	t, lost := l.present()
	own := t != nil && lost == nil && t.hold.Token() == info.Token && t.hold.Valid()
	if !own && record.HolderIdentity == l.config.Identity {
		record.HolderIdentity += "#" + info.Holder.Instance
	}
	return record
}

// Create takes the lease if it is free. Errors: as those of [Lock.Update].
func (l *Lock) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.Update(ctx, record)
}

// Update takes the lease if it is free, vouches for it by a renewal if this process leads, and releases it if the record names nobody.
// Errors: [ErrNotHeld] if another process holds the lease or this one has lost it; otherwise why the quorum could not be
// asked in time.
func (l *Lock) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	if record.HolderIdentity == "" {
		return l.release(ctx)
	}
	if record.HolderIdentity != l.config.Identity {
		return lease.Invalid("holderIdentity", fmt.Sprintf("is %q", record.HolderIdentity), fmt.Sprintf("this lock is %q's", l.config.Identity))
	}
	ctx, done, err := l.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	t, lost := l.present()
	switch {
	case t == nil:
		return l.acquire(ctx, record)
	case lost != nil:
		return fmt.Errorf("%w: leadership has to end first: %w", ErrNotHeld, lost)
	}
	if err := t.hold.Verify(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrNotHeld, err)
	}
	return nil
}

// present returns the present leadership, nil if there is none, and how its lease was lost, nil if it was not.
func (l *Lock) present() (*term, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term == nil {
		return nil, nil
	}
	return l.term, l.term.lost
}

// begin waits for the call before, and bounds this one: a loop that waited for a quorum could not stop leading.
func (l *Lock) begin(ctx context.Context) (context.Context, func(), error) {
	ctx, cancel := context.WithTimeout(ctx, max(time.Second, l.ttl(resourcelock.LeaderElectionRecord{})/3))
	select {
	case <-l.turn:
		return ctx, func() { l.turn <- struct{}{}; cancel() }, nil
	case <-ctx.Done():
		defer cancel()
		return nil, nil, ctx.Err()
	}
}

func (l *Lock) ttl(record resourcelock.LeaderElectionRecord) time.Duration {
	switch asked := time.Duration(record.LeaseDurationSeconds) * time.Second; {
	case l.config.TTL > 0:
		return l.config.TTL
	case asked > 0:
		return asked
	}
	return DefaultTTL
}

func (l *Lock) acquire(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	metadata, err := json.Marshal(record)
	if err != nil {
		return err
	}
	hold, err := l.client.TryAcquire(ctx, l.config.Resource, lease.AcquireOptions{TTL: l.ttl(record), Metadata: metadata})
	if errors.Is(err, lease.ErrHeld) {
		return fmt.Errorf("%w: %w", ErrNotHeld, err)
	}
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	t := &term{hold: hold}
	t.unhook = context.AfterFunc(hold.Context(), func() { l.ended(t) })
	l.term = t
	return nil
}

// ended hears that the hold's context has ended.
func (l *Lock) ended(t *term) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term != t {
		return // given up, not lost
	}
	t.lost = t.hold.Err()
	for cancel := range l.bound {
		(*cancel)(t.lost)
	}
}

// release ends the present leadership and its lease. One that is lost already is fine.
func (l *Lock) release(ctx context.Context) error {
	t, _ := l.present()
	if t == nil {
		return nil
	}
	l.giveUp(t)
	return t.release(ctx)
}

func (t *term) release(ctx context.Context) error {
	var lost *lease.LostError
	if err := t.hold.Release(ctx); err != nil && !errors.As(err, &lost) {
		return err
	}
	return nil
}

// giveUp says that t is not the present leadership any more, so that the end of its hold is no loss.
func (l *Lock) giveUp(t *term) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term == t {
		l.term = nil
	}
	t.unhook()
}

// The events of client-go that matter here.
const (
	becameLeader   = "became leader"
	stoppedLeading = "stopped leading"
)

// RecordEvent hears from the loop that it began or stopped to lead. When it has stopped and did not release, the lease is
// abandoned: it is not renewed any more and runs out.
func (l *Lock) RecordEvent(event string) {
	if t, _ := l.present(); t != nil && event == stoppedLeading {
		l.giveUp(t)
		t.hold.Abandon()
	}
	if l.config.OnEvent != nil {
		l.config.OnEvent(event)
	}
}

package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/region"
)

// fakeQuorum answers what a test scripts; what is not scripted succeeds plainly. It decides if it is its own coordinator.
type fakeQuorum struct {
	name string

	onAcquire func(context.Context, lease.Acquire) (lease.AcquireOutcome, error)
	onMove    func(to string) (string, error)
	onRemove  func(name string) error
	onRelease func(lease.Release) error
	onStore   func(lease.Checkpoint) error
	onRenew   func(context.Context, []lease.Renew) ([]lease.RenewOutcome, error)
	onGet     func(quorum.GetQuery) (lease.Info, error)
	onWatch   func(ctx context.Context, prefix, resume string, deliver func(quorum.WatchEvent) error) error
	onList    func(quorum.ListQuery) (quorum.ListPage, error)
	onGuard   func(context.Context, lease.GuardCall) (*writv1.GuardResponse, error)
	onRegion  func(context.Context, region.Command) (proto.Message, error)
	onInspect func(lease.Inspect) (lease.Info, error)

	mu          sync.Mutex
	coordinator quorum.Node // guarded by mu
	changed     chan struct{}
	nodes       []quorum.Node // guarded by mu
	notReady    string        // guarded by mu
	signer      *fence.Signer
	lastID      lease.CallID                        // guarded by mu
	open        map[lease.CallID]context.CancelFunc // guarded by mu
	guardCmds   []any                               // guarded by mu; what operators have asked about guards
	changers    []lease.Principal                   // guarded by mu; who has changed the membership
}

var _ Quorum = (*fakeQuorum)(nil)

func newFake(name string) *fakeQuorum {
	signer, err := fence.GenerateSigner()
	if err != nil {
		panic(err)
	}
	jwks, err := signerKeys(signer)
	if err != nil {
		panic(err)
	}
	self := quorum.Node{Name: name, JWKS: jwks}
	return &fakeQuorum{name: name, coordinator: self, changed: make(chan struct{}), nodes: []quorum.Node{self}, signer: signer,
		open: make(map[lease.CallID]context.CancelFunc),
	}
}

func signerKeys(s *fence.Signer) (string, error) {
	set, err := fence.NewKeySet(s.Public())
	if err != nil {
		return "", err
	}
	data, err := set.MarshalJWKS()
	return string(data), err
}

// setCoordinator makes n the one that decides; the zero Node: nobody.
func (q *fakeQuorum) setCoordinator(n quorum.Node) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.coordinator = n
	close(q.changed)
	q.changed = make(chan struct{})
}

func (q *fakeQuorum) setNodes(nodes ...quorum.Node) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.nodes = nodes
}

func (q *fakeQuorum) setNotReady(reason string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.notReady = reason
}

func (q *fakeQuorum) decides() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.coordinator.Name == q.name {
		return nil
	}
	return lease.Errorf(lease.ReasonNotCoordinator, "%s does not decide", q.name)
}

func token(n uint64) fence.Token {
	t, err := fence.NewToken(1, n)
	if err != nil {
		panic(err)
	}
	return t
}

var grantedAt = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func grantOf(cmd lease.Acquire) lease.AcquireOutcome {
	return lease.AcquireOutcome{Grant: &lease.Grant{
		Resource: cmd.Resource, Token: token(7), TTL: cmd.TTL, GrantedAt: grantedAt, RequestID: cmd.RequestID,
		Holder: lease.Holder{Principal: cmd.Principal, Instance: cmd.Instance, Region: cmd.Region},
	}}
}

func (q *fakeQuorum) Acquire(ctx context.Context, cmd lease.Acquire) (lease.AcquireOutcome, error) {
	if err := q.decides(); err != nil {
		return lease.AcquireOutcome{}, err
	}
	if q.onAcquire != nil {
		return q.onAcquire(ctx, cmd)
	}
	return grantOf(cmd), nil
}

func (q *fakeQuorum) CancelAcquire(context.Context, lease.CancelAcquire) (fence.Token, error) {
	return token(7), q.decides()
}

func (q *fakeQuorum) Renew(ctx context.Context, cmds []lease.Renew) ([]lease.RenewOutcome, error) {
	if err := q.decides(); err != nil {
		return nil, err
	}
	if q.onRenew != nil {
		return q.onRenew(ctx, cmds)
	}
	return make([]lease.RenewOutcome, len(cmds)), nil
}

func (q *fakeQuorum) Release(_ context.Context, cmd lease.Release) error {
	if err := q.decides(); err != nil {
		return err
	}
	if q.onRelease != nil {
		return q.onRelease(cmd)
	}
	return nil
}

// Submit answers each command in a goroutine of its own, as the scripted calls do.
func (q *fakeQuorum) Submit(commands []any, deliver func([]lease.Reply)) (lease.CallID, error) {
	if err := q.decides(); err != nil {
		return 0, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	first := q.lastID + 1
	for _, command := range commands {
		q.lastID++
		id := q.lastID
		ctx, cancel := context.WithCancel(context.Background())
		q.open[id] = cancel
		go func() {
			defer q.Abandon(id)
			r := lease.Reply{ID: id}
			var err error
			switch cmd := command.(type) {
			case lease.Acquire:
				var outcome lease.AcquireOutcome
				if outcome, err = q.Acquire(ctx, cmd); outcome.Grant != nil {
					r.Value = outcome.Grant
				} else {
					r.Value = outcome.Waiting
				}
			case lease.Release:
				err = q.Release(ctx, cmd)
			case lease.Checkpoint:
				err = q.Checkpoint(ctx, cmd)
			}
			if ctx.Err() != nil {
				return // abandoned
			}
			if err != nil && !errors.As(err, &r.Err) {
				panic(err)
			}
			deliver([]lease.Reply{r})
		}()
	}
	return first, nil
}

func (q *fakeQuorum) Abandon(id lease.CallID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if cancel := q.open[id]; cancel != nil {
		cancel()
		delete(q.open, id)
	}
}

func (q *fakeQuorum) Checkpoint(_ context.Context, cmd lease.Checkpoint) error {
	if err := q.decides(); err != nil {
		return err
	}
	if q.onStore != nil {
		return q.onStore(cmd)
	}
	return nil
}

func (q *fakeQuorum) ForceRelease(_ context.Context, cmd lease.ForceRelease) (lease.Info, error) {
	return lease.Info{Resource: cmd.Resource, State: lease.Ending, Token: token(7)}, q.decides()
}

func (q *fakeQuorum) Inspect(_ context.Context, cmd lease.Inspect) (lease.Info, error) {
	if err := q.decides(); err != nil {
		return lease.Info{}, err
	}
	if q.onInspect != nil {
		return q.onInspect(cmd)
	}
	if cmd.Token != 0 && cmd.Token != token(7) {
		return lease.Info{}, lease.Errorf(lease.ReasonNotHolder, "%s does not hold %s", cmd.Principal, cmd.Resource)
	}
	info := lease.Info{
		Resource: cmd.Resource, State: lease.Held, Token: token(7), Holder: lease.Holder{Principal: cmd.Principal},
		GrantedAt: grantedAt, RequestID: "r1", Remaining: time.Second, Waiters: 3,
	}
	if cmd.WithCheckpoint {
		info.Checkpoint = []byte("as the coordinator knows")
	}
	return info, nil
}

func (q *fakeQuorum) GuardCall(ctx context.Context, cmd lease.GuardCall) (*writv1.GuardResponse, error) {
	if err := q.decides(); err != nil {
		return nil, err
	}
	if q.onGuard != nil {
		return q.onGuard(ctx, cmd)
	}
	return guardAnswer(cmd.Request), nil
}

// guardAnswer is what a guard is usually answered.
func guardAnswer(req *writv1.GuardRequest) *writv1.GuardResponse {
	resp := &writv1.GuardResponse{Id: req.GetId()}
	switch {
	case req.GetEnrol() != nil:
		resp.Say = &writv1.GuardResponse_Enrolled{Enrolled: &writv1.GuardEnrolled{
			Lease: durationpb.New(30 * time.Second), Base: uint64(token(5)), Rules: &writv1.GuardingRecord{Version: 1},
		}}
	case req.GetContact() != nil:
		resp.Say = &writv1.GuardResponse_Contacted{Contacted: &writv1.GuardContacted{Lease: durationpb.New(30 * time.Second)}}
	default:
		resp.Say = &writv1.GuardResponse_Noted{Noted: &writv1.GuardNoted{}}
	}
	return resp
}

func (q *fakeQuorum) noteGuard(cmd any) error {
	if err := q.decides(); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.guardCmds = append(q.guardCmds, cmd)
	return nil
}

func (q *fakeQuorum) ListGuards(_ context.Context, cmd lease.ListGuards) (*writv1.ListGuardsResponse, error) {
	return &writv1.ListGuardsResponse{Guards: []*writv1.Guard{{Name: "g1"}}}, q.noteGuard(cmd)
}

func (q *fakeQuorum) RemoveGuard(_ context.Context, cmd lease.RemoveGuard) error {
	return q.noteGuard(cmd)
}

func (q *fakeQuorum) SetGuarding(_ context.Context, cmd lease.SetGuarding) (*writv1.GuardingRecord, error) {
	return &writv1.GuardingRecord{Version: 2}, q.noteGuard(cmd)
}

func (q *fakeQuorum) GetGuarding(_ context.Context, cmd lease.GetGuarding) (*writv1.GuardingRecord, error) {
	return &writv1.GuardingRecord{Version: 1}, q.noteGuard(cmd)
}

func (q *fakeQuorum) Region(ctx context.Context, cmd region.Command) (proto.Message, error) {
	if err := q.decides(); err != nil {
		return nil, err
	}
	return q.onRegion(ctx, cmd)
}

var fakeConsistency = map[quorum.Consistency]string{quorum.Linearizable: "linearizable", quorum.Local: "local"}

func (q *fakeQuorum) Get(_ context.Context, query quorum.GetQuery) (lease.Info, error) {
	if q.onGet != nil {
		return q.onGet(query)
	}
	info := lease.Info{Resource: query.Resource, State: lease.Held, Token: token(7), TTL: 10 * time.Second, Revision: 42}
	if query.WithCheckpoint {
		info.Checkpoint = []byte("as " + fakeConsistency[query.Consistency])
	}
	return info, nil
}

func (q *fakeQuorum) List(_ context.Context, query quorum.ListQuery) (quorum.ListPage, error) {
	if q.onList != nil {
		return q.onList(query)
	}
	return quorum.ListPage{Leases: []lease.Info{{Resource: "a/b", State: lease.Free}}, Revision: 42}, nil
}

func (q *fakeQuorum) Watch(ctx context.Context, prefix, resume string, deliver func(quorum.WatchEvent) error) error {
	if q.onWatch != nil {
		return q.onWatch(ctx, prefix, resume, deliver)
	}
	<-ctx.Done()
	return ctx.Err()
}

func (q *fakeQuorum) Coordinator() (quorum.Node, bool, <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.coordinator, q.coordinator.Name == q.name, q.changed
}

func (q *fakeQuorum) Nodes() []quorum.Node {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.nodes
}

func (q *fakeQuorum) Status() quorum.Status {
	q.mu.Lock()
	defer q.mu.Unlock()
	return quorum.Status{
		Node: q.name, Cluster: "test", Incarnation: "i1", Epoch: 1, Coordinator: q.coordinator.Name, Term: 5,
		NotReady: q.notReady, Nodes: q.nodes, Revision: 42, DBBytes: 900, QuotaBytes: 800, OverQuota: true,
	}
}

func (q *fakeQuorum) changedBy(by lease.Principal) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.changers = append(q.changers, by)
}

func (q *fakeQuorum) MemberAdd(_ context.Context, by lease.Principal, name, peerURL string) (uint64, map[string]string, error) {
	q.changedBy(by)
	return 0xabc, map[string]string{name: peerURL}, q.decides()
}

func (q *fakeQuorum) MemberRemove(_ context.Context, by lease.Principal, name string) error {
	q.changedBy(by)
	if q.onRemove != nil {
		return q.onRemove(name)
	}
	return q.decides()
}

func (q *fakeQuorum) MoveCoordinator(_ context.Context, to string) (string, error) {
	if q.onMove != nil {
		return q.onMove(to)
	}
	return to, q.decides()
}

func (q *fakeQuorum) Snapshot(context.Context) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(strings.Repeat("x", snapshotChunkBytes+1))), nil
}

func (q *fakeQuorum) Sign(w fence.Writ) (string, error) {
	signed, err := q.signer.Sign(w)
	if err != nil {
		return "", fmt.Errorf("fake: %w", err)
	}
	return signed, nil
}

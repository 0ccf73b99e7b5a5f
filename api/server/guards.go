package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// guards serves the guards whose sessions are at this node.
type guards struct {
	quorum    Quorum
	forwarder *forwarder
	chain     *chain
	keys      *keyring
	metrics   *metrics
	logger    hclog.Logger
	draining  context.Context
	// patience is how long a guard that does not read may keep a watch of the quorum waiting.
	patience time.Duration
	// probing is how long a guard may take to refuse a canary.
	probing time.Duration
	maxNews int

	mu       sync.Mutex
	sessions []*guardSession // guarded by mu; the newest last
	serial   uint64          // guarded by mu
	probe    uint64          // guarded by mu; the last id
}

const (
	// keysEvery is how soon guards learn of new keys that nobody tells of.
	keysEvery = time.Second
	// probePatience is the default.
	probePatience = 5 * time.Second
	// firstProbe keeps the ids of probes apart from those that guards choose.
	firstProbe = 1 << 63
	// maxFloorsPerPart bounds the parts in which a guard is told its floors: about 1 MiB.
	maxFloorsPerPart = 2000
	// maxSeedBytes bounds what one node answers to another for a guard.
	maxSeedBytes = 64 << 20
	// seedTime is how much longer than others an answer may take that has all the floors in it.
	seedTime = 15 * time.Second
)

// add makes a session known, and has it told the keys.
func (g *guards) add(s *guardSession) error {
	jwks, err := g.jwks()
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return context.Canceled
	}
	g.serial++
	s.serial = g.serial
	g.sessions = append(g.sessions, s)
	g.metrics.guardSessions.Inc()
	s.news.setKeys(jwks)
	s.nudge()
	g.logger.Info("a guard is connected", "guard", s.name, "session", s.process, "peer", string(s.from.principal))
	return nil
}

func (g *guards) remove(s *guardSession) {
	g.mu.Lock()
	defer g.mu.Unlock()
	at := slices.Index(g.sessions, s)
	if at < 0 {
		return
	}
	g.sessions = slices.Delete(g.sessions, at, at+1)
	g.metrics.guardSessions.Dec()
	g.logger.Info("a guard is disconnected", "guard", s.name, "session", s.process, "peer", string(s.from.principal))
}

// all answers the sessions that are open.
func (g *guards) all() []*guardSession {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.sessions)
}

// run tells guards of new keys, and of new coordinators, until ctx ends.
func (g *guards) run(ctx context.Context) {
	again := time.NewTicker(keysEvery)
	defer again.Stop()
	last := g.forwarder.tracker.current()
	for {
		v := g.forwarder.tracker.current()
		if v != last && v.node.Name != "" {
			g.each(func(n *news) bool {
				n.hurry = true
				return true
			})
		}
		last = v
		if jwks, err := g.jwks(); err == nil {
			g.each(func(n *news) bool { return n.setKeys(jwks) })
		}
		select {
		case <-ctx.Done():
			return
		case <-v.changed:
		case <-again.C:
		}
	}
}

// noKeys is what a node answers that has not heard of any node yet, itself included.
var noKeys = sync.OnceValue(func() string {
	text, _ := fence.KeySet{}.MarshalJWKS() // of nothing: it cannot fail
	return string(text)
})

// jwks answers the keys that guards are told; empty if none are known, so that no guard gives up those that it has.
func (g *guards) jwks() (string, error) {
	text, err := g.keys.jwks()
	if err != nil || string(text) == noKeys() {
		return "", err
	}
	return string(text), nil
}

// each changes the news of every session.
func (g *guards) each(change func(*news) bool) {
	for _, s := range g.all() {
		s.mu.Lock()
		changed := change(&s.news)
		s.mu.Unlock()
		if changed {
			s.nudge()
		}
	}
}

// carry has the coordinator answer an ask.
func (g *guards) carry(ctx context.Context, req *writv1.GuardRequest) (*writv1.GuardResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, defaultDeadline)
	defer cancel()
	principal := callerOf(ctx).principal
	var how manner
	if req.GetEnrol() != nil {
		how.wait = seedTime
	}
	resp, err := decide(ctx, g.forwarder, how, func(ctx context.Context) (*writv1.GuardResponse, error) {
		return g.quorum.GuardCall(ctx, lease.GuardCall{Caller: lease.Caller{Principal: principal}, Request: req})
	}, func(ctx context.Context, l *link, opts ...grpc.CallOption) (*writv1.GuardResponse, error) {
		return l.peer.Guard(ctx, &writv1.GuardCallRequest{Principal: string(principal), Request: req}, append(opts, grpc.MaxCallRecvMsgSize(maxSeedBytes))...)
	})
	if err == nil && !answers(resp, req) {
		err = fmt.Errorf("a guard's %s was answered with %T", askKind(req), resp.GetSay())
	}
	return resp, err
}

// issuer is the name in this quorum's writs.
func (g *guards) issuer() string { return g.quorum.Status().Cluster }

// answers tells whether resp is of the kind that req asks for.
func answers(resp *writv1.GuardResponse, req *writv1.GuardRequest) bool {
	switch req.GetAsk().(type) {
	case *writv1.GuardRequest_Enrol:
		return resp.GetEnrolled() != nil
	case *writv1.GuardRequest_Contact:
		return resp.GetContacted() != nil
	}
	return resp.GetNoted() != nil
}

// answerParts makes messages that are small enough of an answer, which is not changed: its floors and rules may be the
// table's own.
func (g *guards) answerParts(id uint64, resp *writv1.GuardResponse) (messages []*writv1.GuardResponse) {
	last := &writv1.GuardResponse{Id: id, Say: resp.GetSay()}
	if all := resp.GetEnrolled(); all != nil {
		issuer := cmp.Or(all.GetIssuer(), g.issuer())
		floors := all.GetFloors()
		for ; len(floors) > maxFloorsPerPart; floors = floors[maxFloorsPerPart:] {
			part := &writv1.GuardEnrolled{Lease: all.GetLease(), Base: all.GetBase(), Issuer: issuer, Floors: floors[:maxFloorsPerPart], More: true}
			messages = append(messages, &writv1.GuardResponse{Id: id, Say: &writv1.GuardResponse_Enrolled{Enrolled: part}})
		}
		last.Say = &writv1.GuardResponse_Enrolled{Enrolled: &writv1.GuardEnrolled{
			Lease: all.GetLease(), Base: all.GetBase(), Issuer: issuer, Floors: floors, Rules: all.GetRules(),
			Incarnation: all.GetIncarnation(), Epoch: all.GetEpoch(), Approvers: all.GetApprovers(),
		}}
	}
	if all := resp.GetContacted(); len(all.GetRaises()) > maxNews {
		raises := all.GetRaises()
		for ; len(raises) > maxNews; raises = raises[maxNews:] {
			messages = append(messages, raisesMessage(raises[:maxNews]))
		}
		last.Say = &writv1.GuardResponse_Contacted{Contacted: &writv1.GuardContacted{
			Lease: all.GetLease(), Raises: raises, Floors: all.GetFloors(), Rules: all.GetRules(),
			Incarnation: all.GetIncarnation(), Epoch: all.GetEpoch(), Approvers: all.GetApprovers(),
		}}
	}
	return append(messages, last)
}

func tokenText(token uint64) string { return fence.Token(token).String() }

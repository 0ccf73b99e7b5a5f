package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/region"
)

const (
	// canaryHolder holds nothing: it is named in the writs of canaries.
	canaryHolder = "writ/canary"
	// canaryName is a resource of that name under a prefix that is covered.
	canaryName = "canary"
	// maxProbes bounds what one guard was told to answer and has not.
	maxProbes = 64
)

// Why a guard has not answered what it was told to, or not been asked.
var (
	errProbeGone   = errors.New("the guard has disconnected")
	errProbeBusy   = errors.New("other canaries are under way")
	errOtherAnswer = errors.New("the guard answered something else")
	errNoOldToken  = errors.New("there is no older token yet: nothing was granted")
	errNotOld      = errors.New("the token is not an old one")
)

// verify sends a canary through each guard that is connected here, of that name and for that resource unless they are empty.
func (g *guards) verify(ctx context.Context, name string, resource lease.Resource, token fence.Token) []*writv1.GuardVerdict {
	newest := make(map[string]*guardSession)
	for _, s := range g.all() {
		if name == "" || s.name == name {
			newest[s.name] = s
		}
	}
	ctx, cancel := context.WithTimeout(ctx, g.probing)
	defer cancel()
	var verdicts []*writv1.GuardVerdict
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, s := range newest {
		if resource != "" && !coveredBy(s.covers, resource) {
			continue
		}
		all.Go(func() {
			v := g.verifyOne(ctx, s, resource, token)
			mu.Lock()
			defer mu.Unlock()
			verdicts = append(verdicts, v)
		})
	}
	all.Wait()
	slices.SortFunc(verdicts, func(a, b *writv1.GuardVerdict) int { return cmp.Compare(a.GetGuard(), b.GetGuard()) })
	return verdicts
}

// verifyOne answers what became of one canary. Whatever goes wrong, it is no refusal.
func (g *guards) verifyOne(ctx context.Context, s *guardSession, resource lease.Resource, asked fence.Token) (v *writv1.GuardVerdict) {
	v = &writv1.GuardVerdict{Guard: s.name}
	outcome := "unanswered"
	defer func() {
		if r := recover(); r != nil {
			v.Detail = g.chain.recovered(ctx, r).Error()
		}
		g.metrics.guardProbes.WithLabelValues(outcome).Inc()
	}()
	if resource == "" {
		resource = canaryFor(s.covers)
	}
	v.Resource = string(resource)
	token, writ, err := g.canary(ctx, resource, asked)
	if err != nil {
		v.Detail = err.Error()
		return v
	}
	v.Token = uint64(token)
	probed, err := s.probe(ctx, &writv1.GuardProbe{Resource: string(resource), Token: uint64(token), Writ: writ})
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		v.Detail = "the guard did not answer within " + g.probing.String()
	case err != nil:
		v.Detail = err.Error()
	case probed.GetRefused():
		v.Refused, v.Answered, v.Detail, outcome = true, true, probed.GetDetail(), "refused"
	case !asked.IsZero():
		// The caller judges: the token may still be the present one.
		v.Answered, v.Detail, outcome = true, probed.GetDetail(), "admitted"
	default:
		v.Answered, v.Detail, outcome = true, probed.GetDetail(), "admitted"
		g.logger.Error("a guard did not refuse an old token", "guard", s.name, "resource", v.GetResource(), "token", token.String(), "detail", v.GetDetail())
	}
	return v
}

// canaryFor picks a resource that a guard covers: one that it names if there is one.
func canaryFor(covers []string) lease.Resource {
	for _, c := range covers {
		if lease.Resource(c) == lease.Resource(patternName(c)) {
			return lease.Resource(c)
		}
	}
	return lease.Resource(patternName(covers[0]) + canaryName)
}

// canary answers a token that is older than any that may be admitted, or the one that is asked for, and a writ for it.
func (g *guards) canary(ctx context.Context, resource lease.Resource, asked fence.Token) (fence.Token, string, error) {
	var token fence.Token
	var err error
	if asked.IsZero() {
		token, err = g.oldToken(ctx, resource)
	} else {
		token, err = asked, g.mayAsk(ctx, resource, asked)
	}
	if err != nil {
		return 0, "", err
	}
	s := signer{quorum: g.quorum, logger: g.logger}
	writ, err := s.sign(fence.Writ{
		Resource: string(resource), Holder: canaryHolder, Token: token, IssuedAt: clock.System().Wall(), RequestID: canaryName,
	})
	return token, writ, err
}

// mayAsk says why there can be no canary with a token. One above the newest would lift a guard's floor, and one with the newest
// would be good for a write: only a drill's resource, before which nothing stands, has those.
func (g *guards) mayAsk(ctx context.Context, resource lease.Resource, token fence.Token) error {
	info, err := g.quorum.Get(ctx, quorum.GetQuery{Resource: resource, Consistency: quorum.Local})
	switch {
	case err != nil:
		return err
	case token > info.Token, token == info.Token && !strings.HasPrefix(string(resource), region.DrillPrefix):
		return fmt.Errorf("%w: %v, and the newest is %v", errNotOld, token, info.Token)
	}
	return nil
}

// oldToken answers a token below the newest that was granted. It must not be above one: a guard would lift its floor.
func (g *guards) oldToken(ctx context.Context, resource lease.Resource) (fence.Token, error) {
	info, err := g.quorum.Get(ctx, quorum.GetQuery{Resource: resource, Consistency: quorum.Local})
	if err != nil && !errors.Is(err, lease.ErrNotFound) {
		return 0, err
	}
	if err != nil || info.Token.IsZero() {
		return fence.NewToken(g.quorum.Status().Epoch, 1)
	}
	switch older := info.Token - 1; {
	case older.Valid():
		return older, nil
	case info.Token.Epoch() > 1:
		return fence.NewToken(info.Token.Epoch()-1, fence.MaxSequence)
	}
	return 0, errNoOldToken
}

// probe sends a canary to a guard and waits for the verdict.
func (s *guardSession) probe(ctx context.Context, p *writv1.GuardProbe) (*writv1.GuardProbed, error) {
	answer, err := s.demand(ctx, &writv1.GuardResponse{Say: &writv1.GuardResponse_Probe{Probe: p}})
	if err == nil && answer.GetProbed() == nil {
		err = errOtherAnswer
	}
	return answer.GetProbed(), err
}

// demand tells a guard something that it has to answer, under an id of this node's, and waits for the answer.
func (s *guardSession) demand(ctx context.Context, m *writv1.GuardResponse) (*writv1.GuardRequest, error) {
	answer := make(chan *writv1.GuardRequest, 1)
	id := s.guards.nextProbe()
	m.Id = id
	s.mu.Lock()
	switch {
	case s.gone || s.broken != nil:
		s.mu.Unlock()
		return nil, errProbeGone
	case len(s.asked) >= maxProbes:
		s.mu.Unlock()
		return nil, errProbeBusy
	}
	s.asked[id] = answer
	s.answers = append(s.answers, m)
	s.mu.Unlock()
	s.nudge()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.asked, id)
		// If the guard does not read, it has not even been sent.
		s.answers = slices.DeleteFunc(s.answers, func(other *writv1.GuardResponse) bool { return other == m })
	}()
	select {
	case a := <-answer:
		return a, nil
	case <-s.ctx.Done():
		return nil, errProbeGone
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (g *guards) nextProbe() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.probe = max(g.probe+1, firstProbe)
	return g.probe
}

// answeredBy takes in what a guard answers to what it was told. An answer that nobody waits for any more is dropped.
func (s *guardSession) answeredBy(req *writv1.GuardRequest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if answer := s.asked[req.GetId()]; answer != nil {
		delete(s.asked, req.GetId())
		answer <- req
	}
}

package server

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/quorum"
)

const (
	// canaryHolder holds nothing: it is named in the writs of canaries.
	canaryHolder = "writ/canary"
	// canaryName is a resource of that name under a prefix that is covered.
	canaryName = "canary"
	// maxProbes bounds the probes that one guard has not answered.
	maxProbes = 64
)

// Of a probe that tells nothing.
var (
	errProbeGone  = errors.New("the guard has disconnected")
	errProbeBusy  = errors.New("other canaries are under way")
	errNoOldToken = errors.New("there is no older token yet: nothing was granted")
)

// verify sends a canary through each guard that is connected here, of that name and for that resource unless they are empty.
func (g *guards) verify(ctx context.Context, name string, resource lease.Resource) []*writv1.GuardVerdict {
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
			v := g.verifyOne(ctx, s, resource)
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
func (g *guards) verifyOne(ctx context.Context, s *guardSession, resource lease.Resource) (v *writv1.GuardVerdict) {
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
	token, writ, err := g.canary(ctx, resource)
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
		v.Refused, v.Detail, outcome = true, probed.GetDetail(), "refused"
	default:
		v.Detail, outcome = probed.GetDetail(), "admitted"
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

// canary answers a token that is older than any that may be admitted, and a writ for it.
func (g *guards) canary(ctx context.Context, resource lease.Resource) (fence.Token, string, error) {
	token, err := g.oldToken(ctx, resource)
	if err != nil {
		return 0, "", err
	}
	s := signer{quorum: g.quorum, logger: g.logger}
	writ, err := s.sign(fence.Writ{
		Resource: string(resource), Holder: canaryHolder, Token: token, IssuedAt: clock.System().Wall(), RequestID: canaryName,
	})
	return token, writ, err
}

// oldToken answers a token below the newest that was granted. It must not be above one: a guard would lift its floor.
func (g *guards) oldToken(ctx context.Context, resource lease.Resource) (fence.Token, error) {
	info, err := g.quorum.Get(ctx, resource, quorum.Local)
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
	verdict := make(chan *writv1.GuardProbed, 1)
	id := s.guards.nextProbe()
	s.mu.Lock()
	switch {
	case s.gone || s.broken != nil:
		s.mu.Unlock()
		return nil, errProbeGone
	case len(s.probes) >= maxProbes:
		s.mu.Unlock()
		return nil, errProbeBusy
	}
	s.probes[id] = verdict
	s.answers = append(s.answers, &writv1.GuardResponse{Id: id, Say: &writv1.GuardResponse_Probe{Probe: p}})
	s.mu.Unlock()
	s.nudge()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.probes, id)
		// If the guard does not read, it has not even been sent.
		s.answers = slices.DeleteFunc(s.answers, func(m *writv1.GuardResponse) bool { return m.GetId() == id && m.GetProbe() != nil })
	}()
	select {
	case v := <-verdict:
		return v, nil
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

// probed takes a verdict in. One that nobody waits for any more is dropped.
func (s *guardSession) probed(id uint64, v *writv1.GuardProbed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if verdict := s.probes[id]; verdict != nil {
		delete(s.probes, id)
		verdict <- v
	}
}

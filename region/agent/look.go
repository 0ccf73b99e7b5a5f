package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease/clock"
)

// watched is a group and what was seen of it last.
type watched struct {
	Group

	mu     sync.Mutex
	health health              // guarded by mu
	last   *writv1.GroupReport // guarded by mu; without peers
	at     clock.Instant       // guarded by mu; when the look began that last is of

	digest   string        // guarded by mu; empty: there is none
	digestAt clock.Instant // guarded by mu; when the look began that it is of
}

// peerSight is a peer and whether it was reached last.
type peerSight struct {
	Peer

	mu   sync.Mutex
	last *writv1.PeerReport // guarded by mu; nil: not tried yet
}

// staleAfter is how many looks may be missed before nothing is known.
const staleAfter = 3

// maxDetailBytes bounds why a configuration is unknown: the quorum takes no long digests.
const maxDetailBytes = 160

// watch lists what to look at.
func (a *Agent) watch() {
	seen := make(map[Peer]bool)
	for _, g := range a.cfg.Groups {
		w := &watched{Group: g, health: health{threshold: a.cfg.Failures}}
		a.groups[g.Name] = w
		if g.Digest != nil {
			a.lookAtConfiguration(w) // preflight goes by the first report already
		}
		for _, p := range g.peers(a.cfg.Peers) {
			if !seen[p] {
				seen[p] = true
				a.peers = append(a.peers, &peerSight{Peer: p})
			}
		}
	}
}

// look starts to look at everything, again and again until ctx ends.
func (a *Agent) look(ctx context.Context, tasks *sync.WaitGroup) {
	for _, g := range a.groups {
		if g.Probe != nil {
			tasks.Go(func() { a.repeat(ctx, func(ctx context.Context) { a.lookAt(ctx, g) }) })
		}
		if g.Digest != nil {
			tasks.Go(func() { a.repeat(ctx, func(context.Context) { a.lookAtConfiguration(g) }) })
		}
	}
	for _, p := range a.peers {
		tasks.Go(func() {
			a.repeat(ctx, func(ctx context.Context) {
				report := p.reach(ctx)
				p.mu.Lock()
				defer p.mu.Unlock()
				p.last = report
			})
		})
	}
}

// repeat calls do once in each interval, and gives it as long as a probe may take.
func (a *Agent) repeat(ctx context.Context, do func(context.Context)) {
	timer := a.clock.NewTimer(clock.Never)
	defer timer.Stop()
	for {
		began := a.clock.Now()
		limited, cancel := context.WithTimeout(ctx, a.cfg.ProbeTimeout)
		do(limited)
		cancel()
		timer.Reset(began.Add(a.interval()))
		select {
		case <-ctx.Done():
			return
		case <-timer.C():
		}
	}
}

func (a *Agent) lookAt(ctx context.Context, g *watched) {
	began := a.clock.Now()
	sight, err := g.Probe.Look(ctx)
	if errors.Is(context.Cause(ctx), context.Canceled) {
		return
	}
	var failure *Failure
	if !errors.As(err, &failure) && errors.Is(err, context.DeadlineExceeded) {
		failure = &Failure{Detail: fmt.Sprintf("no answer within %v", a.cfg.ProbeTimeout)}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	report := &writv1.GroupReport{Group: g.Name}
	var before writv1.Health
	if g.last != nil {
		before = g.last.GetHealth()
	}
	report.Health, report.Detail = g.health.judge(sight, failure, err)
	report.Detail = clip(report.GetDetail(), maxOutputBytes)
	if err == nil {
		sight.report(report)
	}
	g.last, g.at = report, began
	if report.GetHealth() != before {
		a.logger.Info("the health has changed", "group", g.Name, "health", healthName(report.GetHealth()), "detail", report.GetDetail())
	}
}

// lookAtConfiguration names the configuration as it is now.
func (a *Agent) lookAtConfiguration(g *watched) {
	began := a.clock.Now()
	digest, err := g.Digest()
	if err != nil {
		digest = a.unknownDigest(err.Error())
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.digest != "" && digest != g.digest {
		a.logger.Warn("the configuration has changed", "group", g.Name, "digest", digest, "before", g.digest)
	}
	g.digest, g.digestAt = digest, began
}

// unknownDigest stands for a configuration that cannot be looked at. It is like that of no other region: what nobody has seen is
// not the same.
func (a *Agent) unknownDigest(detail string) string {
	return "unknown in " + a.cfg.Region + ", " + clip(detail, maxDetailBytes)
}

// configuration is the digest of the last look.
func (a *Agent) configuration(g *watched, now clock.Instant, stale time.Duration) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.Digest != nil && now.Sub(g.digestAt) > stale {
		return a.unknownDigest(fmt.Sprintf("not read for %v", now.Sub(g.digestAt).Round(time.Second)))
	}
	return g.digest
}

// reports is what is known at the moment.
func (a *Agent) reports() []*writv1.GroupReport {
	now := a.clock.Now()
	stale := staleAfter * max(a.interval(), a.cfg.ProbeTimeout)
	reports := make([]*writv1.GroupReport, 0, len(a.cfg.Groups))
	for _, g := range a.cfg.Groups {
		w := a.groups[g.Name]
		r := w.report(now, stale)
		r.ConfigDigest, r.Hooks = a.configuration(w, now, stale), g.kinds()
		for _, p := range g.peers(a.cfg.Peers) {
			if seen := a.peer(p); seen != nil {
				r.Peers = append(r.Peers, seen)
			}
		}
		reports = append(reports, r)
	}
	return reports
}

func (a *Agent) peer(p Peer) *writv1.PeerReport {
	for _, s := range a.peers {
		if s.Peer == p {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.last
		}
	}
	return nil
}

// report is what was seen last, or that nothing is known.
func (g *watched) report(now clock.Instant, stale time.Duration) *writv1.GroupReport {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.Probe == nil:
		return &writv1.GroupReport{Group: g.Name, Detail: "the agent has no probe for this group"}
	case g.last == nil:
		return &writv1.GroupReport{Group: g.Name, Detail: "the agent has just started"}
	case now.Sub(g.at) > stale:
		return &writv1.GroupReport{Group: g.Name, Detail: fmt.Sprintf("the probe has not come back for %v", now.Sub(g.at).Round(time.Second))}
	}
	report := cloneReport(g.last)
	report.Age = durationpb.New(now.Sub(g.at))
	return report
}

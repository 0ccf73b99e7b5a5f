package guard

import (
	"context"
	"fmt"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/gate"
)

const (
	// maxProbes bounds the probes under way; more are not answered.
	maxProbes = 4
	// probeTime bounds one.
	probeTime = 10 * time.Second
	// probeDetail bounds what is told about one.
	probeDetail = 1 << 10
)

type canaryKey struct{}

// IsCanary reports whether a request is a canary, which must not reach the storage even if it is admitted.
func IsCanary(ctx context.Context) bool { return ctx.Value(canaryKey{}) != nil }

// WithCanary marks a request as a canary.
func WithCanary(ctx context.Context) context.Context {
	return context.WithValue(ctx, canaryKey{}, true)
}

// SetProbe takes the place of [Config.Probe], for fronts that need the guard before they exist. nil: the default.
func (g *Guard) SetProbe(p Prober) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.prober = p
}

// probe carries a canary through the front and answers on the conversation that it came by. The caller holds mu.
func (g *Guard) probe(c *conversation, p gate.Probe) {
	prober := g.prober
	if prober == nil {
		prober = g.admitCanary
	}
	select {
	case g.probes <- struct{}{}:
	default:
		return // one that is not answered counts as that
	}
	g.tasks.Go(func() {
		defer func() { <-g.probes }()
		ctx, cancel := context.WithTimeout(WithCanary(g.ctx), probeTime)
		defer cancel()
		refused, detail := prober(ctx, p.Probe)
		g.metrics.probed(refused)
		c.say(&writv1.GuardRequest{
			Id: p.ID, Guard: g.cfg.Name, Session: g.session,
			Ask: &writv1.GuardRequest_Probed{Probed: &writv1.GuardProbed{
				Refused: refused, Detail: detail[:min(len(detail), probeDetail)],
			}},
		})
	})
}

// admitCanary asks for admission, as a front would, and goes no further.
func (g *Guard) admitCanary(ctx context.Context, p *writv1.GuardProbe) (refused bool, detail string) {
	w := fence.Write{Resource: p.GetResource(), Writ: p.GetWrit()}
	if w.Writ == "" {
		w.Token = fence.Token(p.GetToken())
	}
	a, err := g.Admit(ctx, w)
	switch {
	case err == nil:
		a.Done(fence.Finished)
		return false, fmt.Sprintf("admitted under %s", a.Token())
	case ctx.Err() != nil:
		return false, "not decided: " + err.Error()
	}
	return true, err.Error()
}

package sidecar

import (
	"context"
	"errors"
	"fmt"
	"strings"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard/external"
)

// prober carries a canary through one form. routed is false if the form has no way to the resource.
type prober struct {
	form  string
	probe func(ctx context.Context, p *writv1.GuardProbe) (routed, refused bool, detail string)
}

func (s *Sidecar) addProbe(form string, probe func(context.Context, *writv1.GuardProbe) (routed, refused bool, detail string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.probes = append(s.probes, prober{form, probe})
}

// probe carries a canary through every form that leads to its resource. It is refused if all of them refuse, and there is
// at least one.
func (s *Sidecar) probe(ctx context.Context, p *writv1.GuardProbe) (refused bool, detail string) {
	s.mu.Lock()
	probes := s.probes
	s.mu.Unlock()
	refused = true
	var told []string
	for _, form := range probes {
		routed, ok, said := form.probe(ctx, p)
		if !routed {
			continue
		}
		refused = refused && ok
		told = append(told, form.form+": "+said)
	}
	if len(told) == 0 {
		return false, fmt.Sprintf("no form of this guard leads to resource %q", p.GetResource())
	}
	return refused, strings.Join(told, "; ")
}

func (s *Sidecar) probeProxy(ctx context.Context, p *writv1.GuardProbe) (routed, refused bool, detail string) {
	if _, _, ok := s.proxy.Table().Sample(p.GetResource(), p.GetWrit() == ""); !ok {
		return false, false, ""
	}
	refused, detail = s.proxy.Probe(ctx, p)
	return true, refused, detail
}

func probeJudge(judge *external.Judge) func(context.Context, *writv1.GuardProbe) (routed, refused bool, detail string) {
	return func(ctx context.Context, p *writv1.GuardProbe) (routed, refused bool, detail string) {
		if !judge.Routed(p.GetResource()) {
			return false, false, ""
		}
		refused, detail = verdict(ctx, judge.Probe(ctx, canary(p)))
		return true, refused, detail
	}
}

// probeCheck asks the guard as the check API does. Every resource can be asked about.
func (s *Sidecar) probeCheck(ctx context.Context, p *writv1.GuardProbe) (routed, refused bool, detail string) {
	a, err := s.guard.Admit(ctx, canary(p))
	if err == nil {
		a.Done(fence.Finished)
	}
	if errors.Is(err, fence.ErrUnguarded) {
		return false, false, ""
	}
	refused, detail = verdict(ctx, err)
	return true, refused, detail
}

func canary(p *writv1.GuardProbe) fence.Write {
	w := fence.Write{Resource: p.GetResource(), Writ: p.GetWrit()}
	if w.Writ == "" {
		w.Token = fence.Token(p.GetToken())
	}
	return w
}

// verdict says what a caller would have been told.
func verdict(ctx context.Context, err error) (refused bool, detail string) {
	switch {
	case err == nil:
		return false, "admitted"
	case ctx.Err() != nil:
		return false, "not decided: " + err.Error()
	}
	p := fence.ProblemFor(err)
	return true, fmt.Sprintf("%d %s: %s", p.Status, p.Reason, p.Detail)
}

package agent

import (
	"context"
	"maps"
	randv2 "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease/clock"
)

// polls is what the agent asks the quorum. Results do not wait for a poll that is open; at most two are.
type polls struct {
	answers chan pollAnswer
	tasks   sync.WaitGroup
	open    map[uint64]context.CancelFunc
	last    uint64        // number of the last one
	taken   uint64        // number of the newest one whose answer counted
	at      clock.Instant // when to ask next
	failed  int           // in a row
}

type pollAnswer struct {
	number   uint64
	began    clock.Instant
	response *writv1.AgentPollResponse
	err      error
}

// poll asks if it is time to, or if there are results to send.
func (a *Agent) poll(ctx context.Context) {
	now := a.clock.Now()
	p := &a.polls
	urgent := p.failed == 0 && slices.ContainsFunc(a.outbox, func(m *mail) bool { return m.via == 0 })
	if ctx.Err() != nil || !urgent && (len(p.open) > 0 || now.Before(p.at)) {
		return
	}
	if len(p.open) > 1 {
		oldest := slices.Min(slices.Collect(maps.Keys(p.open)))
		if slices.ContainsFunc(a.outbox, func(m *mail) bool { return m.via == oldest }) {
			// The newer one has the quorum answer it. To end it here would give back what it carries, to be sent with another poll
			// that ends the next one: three results that come together would go round for ever, and no answer be read.
			return
		}
		p.open[oldest]()
		delete(p.open, oldest)
	}
	p.last++
	number, interval := p.last, a.interval()
	ask := a.ask(interval)
	for _, m := range a.outbox {
		if len(ask.Results) < maxOutbox && m.via == 0 {
			m.via = number
			ask.Results = append(ask.Results, m.result)
		}
	}
	call, cancel := context.WithTimeout(ctx, interval+pollSlack)
	p.open[number] = cancel
	p.at = clock.Never
	p.tasks.Go(func() {
		defer cancel()
		response, err := a.cfg.Quorum.AgentPoll(call, ask)
		a.polls.answers <- pollAnswer{number: number, began: now, response: response, err: err}
	})
}

// ask is a poll without results.
func (a *Agent) ask(wait time.Duration) *writv1.AgentPollRequest {
	ask := &writv1.AgentPollRequest{
		Agent: a.cfg.Name, Region: a.cfg.Region, Session: a.session,
		Reports: a.reports(), Wait: durationpb.New(wait), SoftwareVersion: a.cfg.Version,
	}
	if a.cfg.CertificateExpires != nil {
		if at := a.cfg.CertificateExpires(); !at.IsZero() {
			ask.CertificateExpiresAt = timestamppb.New(at)
		}
	}
	return ask
}

// answered takes the end of a poll in.
func (a *Agent) answered(ctx context.Context, r pollAnswer) {
	p := &a.polls
	delete(p.open, r.number)
	for _, m := range a.outbox {
		if m.via == r.number {
			m.via = 0
			if r.err == nil {
				m.result = nil
			}
		}
	}
	a.outbox = slices.DeleteFunc(a.outbox, func(m *mail) bool { return m.result == nil })
	if ctx.Err() != nil {
		return
	}
	a.metrics.polled(r.err)
	if r.err != nil {
		if len(p.open) > 0 {
			return // a newer one took its place
		}
		pause := min(pollFirstPause<<min(p.failed, 8), pollMostPause)
		if p.failed++; p.failed == 1 {
			a.logger.Warn("the quorum does not answer; going on with what is known", "error", r.err)
		}
		p.at = a.clock.Now().Add(pause*3/4 + randv2.N(pause/2))
		return
	}
	if p.failed > 0 {
		a.logger.Info("the quorum answers again")
	}
	p.failed = 0
	if d := r.response.GetInterval().AsDuration(); d >= 10*time.Millisecond && d <= time.Minute {
		a.every.Store(int64(d))
	}
	p.at = r.began.Add(a.interval() / pollsPerInterval)
	// The answer to an older poll that comes late could bring back what a newer one has ended.
	if r.number < p.taken {
		return
	}
	p.taken = r.number
	a.tellGroups(r.response.GetGroups())
	a.step(ctx, Offered{Tasks: a.aimed(r.response)})
}

// aimed answers the tasks of an answer. One that reinstates the region which has the tenure is the end of a rollback: it must
// not make this side follow the other.
func (a *Agent) aimed(r *writv1.AgentPollResponse) []*writv1.Task {
	tasks := slices.Clone(r.GetTasks())
	for i, t := range tasks {
		primary := slices.ContainsFunc(r.GetGroups(), func(g *writv1.AgentGroup) bool {
			return g.GetGroup() == t.GetGroup() && g.GetPrimary() == a.cfg.Region
		})
		if primary && t.GetKind() == writv1.HookKind_HOOK_KIND_REINSTATE && t.GetTo() != a.cfg.Region {
			tasks[i] = proto.CloneOf(t)
			tasks[i].From, tasks[i].To = t.GetTo(), a.cfg.Region
		}
	}
	return tasks
}

// tellGroups says so when the quorum does not take this agent for one of its groups.
func (a *Agent) tellGroups(groups []*writv1.AgentGroup) {
	var missing []string
	for _, g := range a.cfg.Groups {
		if !slices.ContainsFunc(groups, func(known *writv1.AgentGroup) bool { return known.GetGroup() == g.Name }) {
			missing = append(missing, g.Name)
		}
	}
	text := strings.Join(missing, " ")
	if text != a.told && text != "" {
		a.logger.Warn("the quorum does not take this agent for these groups: name its principal under regions[].agent of the group", "groups", text, "region", a.cfg.Region)
	}
	a.told = text
}

package sim

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region"
	"github.com/writ-io/writ/sim/plan"
	"github.com/writ-io/writ/sim/trace"
	"github.com/writ-io/writ/sim/world"
)

// agent is the process of a region beside its data: what region/agent is in production. Its hooks take a while, fail when the
// plan says so, and run at most once by its journal.
type agent struct {
	run     *run
	spec    plan.Agent
	process *world.Process
	dice    *world.Dice
	nodes   []*node
	tour    int
	ill     int // plans that say so
	bad     int // plans that have hooks fail

	journal map[string]*writv1.TaskResult // durable; nil: begun
	log     []string                      // of the journal
	data    map[string]*dataset           // by group
	// Of the present life.
	results []*writv1.TaskResult // that no poll has delivered
	polls   int
}

// dataset is what a region has of what a group protects.
type dataset struct {
	position uint64        // how many writes it has
	since    time.Duration // when it was level with the primary last
	writable bool          // its programs are to write
	token    fence.Token   // that its programs present; the last one that the agent was told for its region
}

const (
	agentInterval = time.Second
	agentPatience = 3 * time.Second
)

func newAgent(r *run, spec plan.Agent) *agent {
	a := &agent{
		run: r, spec: spec, process: r.world.NewProcess(spec.Name, spec.Region, spec.PPM), dice: r.world.Dice("agent " + spec.Name),
		journal: make(map[string]*writv1.TaskResult), data: make(map[string]*dataset),
	}
	a.nodes = r.nearest(a.process)
	for _, g := range r.plan.Groups {
		if slices.Contains(g.Regions, spec.Region) {
			a.data[g.Name] = &dataset{writable: g.Regions[0] == spec.Region}
		}
	}
	return a
}

func (a *agent) start() {
	if a.process.Up() {
		return
	}
	a.process.Start()
	a.run.story.up(a.process)
	a.results = nil
	for _, key := range a.log {
		if result := a.journal[key]; result != nil && result.Outcome == writv1.HookOutcome_HOOK_OUTCOME_PENDING {
			result.Outcome, result.Output = writv1.HookOutcome_HOOK_OUTCOME_FAILED, "the agent ended; it may have run"
		}
	}
	a.replicate()
	a.poll()
}

func (a *agent) crash() {
	if a.process.Up() {
		a.process.Crash()
		a.run.story.downAt(a.process)
	}
}

// replicate follows the writes of the storage, as far as the network lets it.
func (a *agent) replicate() {
	for _, name := range sortedKeys(a.data) {
		d := a.data[name]
		if a.run.net.Connected(a.run.storage.process, a.process) {
			d.position, d.since = uint64(len(a.run.storage.list(lease.Resource(name)).acked)), a.run.world.Now()
		}
	}
	a.process.After(a.dice.Between(50*time.Millisecond, 300*time.Millisecond), a.replicate)
}

// poll says what there is to say, and waits for what is to be done.
func (a *agent) poll() {
	a.polls++
	number, sent := a.polls, slices.Clone(a.results)
	ask := &writv1.AgentPollRequest{
		Agent: a.spec.Name, Region: a.spec.Region, Session: a.spec.Name + "/" + decimal(a.process.Life()), Wait: durationpb.New(agentInterval), Results: sent,
	}
	for _, name := range sortedKeys(a.data) {
		ask.Reports = append(ask.Reports, a.report(name))
	}
	over := false
	done := func(answer *writv1.AgentPollResponse) {
		if over || a.polls != number {
			return
		}
		over = true
		if answer == nil {
			a.tour++
			a.process.After(a.dice.Between(50*time.Millisecond, 500*time.Millisecond), a.poll)
			return
		}
		a.results = slices.DeleteFunc(a.results, func(r *writv1.TaskResult) bool { return slices.Contains(sent, r) })
		a.hears(answer)
		a.process.After(a.dice.Between(0, 50*time.Millisecond), a.poll)
	}
	n := a.nodes[a.tour%len(a.nodes)]
	command := region.Command{Caller: lease.Caller{Principal: lease.Principal(agentPrincipal(a.spec.Region))}, Ask: ask}
	a.run.net.Send(a.process, n.process, func() {
		n.serve(command, agentPatience, false, func(r lease.Reply) {
			a.run.net.Send(n.process, a.process, func() {
				answer, _ := r.Value.(*writv1.AgentPollResponse)
				done(answer)
			})
		})
	})
	a.process.After(agentPatience, func() { done(nil) })
}

func (a *agent) report(name string) *writv1.GroupReport {
	d := a.data[name]
	room, writable := uint32(500), d.writable
	report := &writv1.GroupReport{
		Group: name, Health: writv1.Health_HEALTH_OK, Detail: "simulated", Headroom: &room, Lag: durationpb.New(a.run.world.Now() - d.since),
		Position: &writv1.Position{Log: "1", Bytes: d.position}, Writable: &writable,
	}
	if a.ill > 0 {
		report.Health = writv1.Health_HEALTH_FAILED
	}
	return report
}

// hears does what is to be done that has not been done before.
func (a *agent) hears(answer *writv1.AgentPollResponse) {
	for _, g := range answer.Groups {
		if d := a.data[g.Group]; d != nil && g.Primary == a.spec.Region && g.Token != 0 {
			d.token = fence.Token(g.Token)
		}
	}
	for _, t := range answer.Tasks {
		key := fmt.Sprintf("%s/%d/%v", t.Promotion, t.Step, t.Kind)
		result, begun := a.journal[key]
		switch {
		case !begun:
			a.carryOut(key, t)
		case result.Outcome == writv1.HookOutcome_HOOK_OUTCOME_PENDING:
		case !slices.Contains(a.results, result):
			a.results = append(a.results, result)
		}
	}
}

// carryOut runs a hook.
func (a *agent) carryOut(key string, t *writv1.Task) {
	result := &writv1.TaskResult{Group: t.Group, Promotion: t.Promotion, Step: t.Step, Kind: t.Kind, Outcome: writv1.HookOutcome_HOOK_OUTCOME_PENDING}
	a.journal[key] = result
	a.log = append(a.log, key)
	a.run.story.event(a.process, trace.EventOperator, "runs %v of %s", t.Kind, t.Promotion)
	took := a.dice.Between(0, 800*time.Millisecond)
	if a.dice.Chance(50) {
		took = a.dice.Between(hookTimeout/2, 2*hookTimeout)
	}
	if t.Kind == writv1.HookKind_HOOK_KIND_PROMOTE {
		a.run.judge.Promotes(a.spec.Region, lease.Resource(t.Resource), fence.Token(t.Token))
	}
	a.process.After(took, func() {
		result.Took = durationpb.New(took)
		if a.bad > 0 {
			result.Outcome, result.Output = writv1.HookOutcome_HOOK_OUTCOME_FAILED, "simulated"
		} else {
			result.Outcome = writv1.HookOutcome_HOOK_OUTCOME_DONE
			a.effect(t, result)
		}
		a.results = append(a.results, result)
		a.poll()
	})
}

// effect is what a hook does to the region.
func (a *agent) effect(t *writv1.Task, result *writv1.TaskResult) {
	d := a.data[t.Group]
	if d == nil {
		return
	}
	switch t.Kind {
	case writv1.HookKind_HOOK_KIND_DRAIN:
		d.writable = false
		result.Position = &writv1.Position{Log: "1", Bytes: d.position}
	case writv1.HookKind_HOOK_KIND_DEMOTE:
		d.writable = false
	case writv1.HookKind_HOOK_KIND_PROMOTE:
		d.writable = true
		d.token = max(d.token, fence.Token(t.Token))
		result.Position = &writv1.Position{Log: "1", Bytes: d.position}
	case writv1.HookKind_HOOK_KIND_UNDRAIN:
		d.writable = true
	case writv1.HookKind_HOOK_KIND_REINSTATE:
		d.writable = t.To == a.spec.Region
	default: // traffic is moved, or looked after
	}
}

// agentIn is the agent of a region.
func (r *run) agentIn(region string) *agent {
	for _, a := range r.agents {
		if a.spec.Region == region {
			return a
		}
	}
	return nil
}

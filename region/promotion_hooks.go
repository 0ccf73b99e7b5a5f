//writ:core

package region

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// hookGrace is how much longer than a hook's own timeout its answer is waited for.
const hookGrace = 5 * time.Second

// maxHookRuns bounds the hook runs that a record keeps.
const maxHookRuns = 64

// need is a hook that a state waits for.
type need struct {
	kind    writv1.HookKind
	region  string
	percent uint32
}

func (n need) String() string {
	s := hookName(n.kind)
	if n.kind == writv1.HookKind_HOOK_KIND_SHIFT {
		s += " " + strconv.FormatUint(uint64(n.percent), 10) + " %"
	}
	return s + " in " + n.region
}

// needed answers the group's hook of a kind if a region has an agent to run it.
func (x *Machine) needed(g *group, kind writv1.HookKind, region string) *writv1.Hook {
	r := findRegion(g.rec.Spec, region)
	if r == nil || r.Agent == "" {
		return nil
	}
	return hookOf(g.rec.Spec, kind)
}

func hookOf(spec *writv1.GroupSpec, kind writv1.HookKind) *writv1.Hook {
	for _, h := range spec.Hooks {
		if h.Kind == kind {
			return h
		}
	}
	return nil
}

// needs lists the hooks that have to succeed before a promotion leaves its state, in order.
func (x *Machine) needs(g *group, rec *writv1.Promotion) []need {
	var all []need
	add := func(kind writv1.HookKind, region string, percent uint32) bool {
		if x.needed(g, kind, region) == nil {
			return false
		}
		all = append(all, need{kind, region, percent})
		return true
	}
	switch rec.State {
	case draining:
		add(writv1.HookKind_HOOK_KIND_DRAIN, rec.From, 0)
	case undraining:
		add(writv1.HookKind_HOOK_KIND_UNDRAIN, rec.From, 0)
	case granted:
		add(writv1.HookKind_HOOK_KIND_PROMOTE, rec.To, 0)
		steps := g.rec.Spec.Shift
		if len(steps) == 0 {
			steps = []uint32{100}
		}
		for _, percent := range steps {
			add(writv1.HookKind_HOOK_KIND_SHIFT, rec.To, percent)
		}
	case verifying:
		add(writv1.HookKind_HOOK_KIND_VERIFY, rec.To, 0)
	case reconciled:
		for _, region := range losers(rec) {
			add(writv1.HookKind_HOOK_KIND_REINSTATE, region, 0)
		}
	case rollingBack:
		if g.rec.Primary != rec.From {
			break
		}
		if !add(writv1.HookKind_HOOK_KIND_UNDRAIN, rec.From, 0) {
			add(writv1.HookKind_HOOK_KIND_REINSTATE, rec.From, 0)
		}
		if askedToShift(rec) {
			add(writv1.HookKind_HOOK_KIND_SHIFT, rec.From, 100)
		}
	default:
	}
	return all
}

// askedToShift tells whether traffic may have gone to B, which it must not be left with: also where nobody knows, as after a step that
// timed out.
func askedToShift(rec *writv1.Promotion) bool {
	return slices.ContainsFunc(rec.Hooks, func(run *writv1.HookRun) bool {
		return run.Kind == writv1.HookKind_HOOK_KIND_SHIFT && !shiftsBack(rec, run)
	})
}

// shiftsBack tells whether a run of the shift hook gives A its traffic again.
func shiftsBack(rec *writv1.Promotion, run *writv1.HookRun) bool {
	return run.Kind == writv1.HookKind_HOOK_KIND_SHIFT && rec.From != rec.To && run.Region == rec.From
}

// losers are the regions of whose writes some may be lost.
func losers(rec *writv1.Promotion) []string {
	var all []string
	for _, lost := range rec.Tails {
		if lost.From != "" && !slices.Contains(all, lost.From) {
			all = append(all, lost.From)
		}
	}
	return all
}

func (x *Machine) nextNeed(p *promotion) (need, bool) { return x.nextNeedOf(p.group, p.rec) }

// nextNeedOf is the first hook that has not succeeded; false if all have.
func (x *Machine) nextNeedOf(g *group, rec *writv1.Promotion) (need, bool) {
	for _, n := range x.needs(g, rec) {
		at := lastRun(rec, n)
		if at < 0 {
			return n, true
		}
		run := rec.Hooks[at]
		ended := run.Outcome != writv1.HookOutcome_HOOK_OUTCOME_PENDING
		if run.Outcome != writv1.HookOutcome_HOOK_OUTCOME_DONE && !run.Skipped && (!ended || !x.needed(g, n.kind, n.region).Optional) {
			return n, true
		}
	}
	return need{}, false
}

// lastRun is the newest run of a hook; -1: it was not asked for.
func lastRun(rec *writv1.Promotion, n need) int {
	for i, run := range slices.Backward(rec.Hooks) {
		if run.Kind == n.kind && run.Region == n.region && run.Percent == n.percent {
			return i
		}
	}
	return -1
}

func pending(run *writv1.HookRun) bool {
	return run.Outcome == writv1.HookOutcome_HOOK_OUTCOME_PENDING
}

// ask notes in a record, which is being changed, that a hook is asked for.
func (x *Machine) ask(m lease.Moment, p *promotion, rec *writv1.Promotion, n need) {
	if at := lastRun(rec, n); at >= 0 {
		rec.Hooks[at].Output = "" // the newest output is what people need
	}
	step := rec.Step
	for _, o := range p.group.history {
		step = max(step, o.rec.Step)
	}
	rec.Step = step + 1
	if len(rec.Hooks) >= maxHookRuns {
		rec.Hooks = forgetRun(rec.Hooks)
	}
	rec.Hooks = append(rec.Hooks, &writv1.HookRun{
		Kind: n.kind, Region: n.region, Percent: n.percent, Step: rec.Step, Outcome: writv1.HookOutcome_HOOK_OUTCOME_PENDING, At: timestamppb.New(m.Wall)})
	p.asked = m.Now
	x.rouse(p.group, n.region)
	x.wake(m.Now.Add(x.hookTimeout(p.group, n.kind)))
}

// forgetRun drops the oldest run that has been repeated: how each hook went last is what promotions go by.
func forgetRun(runs []*writv1.HookRun) []*writv1.HookRun {
	for i, run := range runs {
		if slices.ContainsFunc(runs[i+1:], func(o *writv1.HookRun) bool {
			return o.Kind == run.Kind && o.Region == run.Region && o.Percent == run.Percent
		}) {
			return slices.Delete(runs, i, i+1)
		}
	}
	return runs
}

func (x *Machine) hookTimeout(g *group, kind writv1.HookKind) time.Duration {
	return timeoutOf(hookOf(g.rec.Spec, kind)) + hookGrace
}

func timeoutOf(h *writv1.Hook) time.Duration {
	if h.GetTimeout() == nil {
		return DefaultHookTimeout
	}
	return h.Timeout.AsDuration()
}

// pursue goes on with a hook that has not succeeded.
func (x *Machine) pursue(m lease.Moment, p *promotion, n need) {
	at := lastRun(p.rec, n)
	switch {
	case at < 0:
		x.changePromotion(p, func(rec *writv1.Promotion) { x.ask(m, p, rec, n) })
	case pending(p.rec.Hooks[at]):
		x.wake(p.asked.Add(x.hookTimeout(p.group, n.kind)))
	default:
		x.stick(p, n.String()+" "+outcomeText(p.rec.Hooks[at])+": make it work and resume")
	}
}

func outcomeText(run *writv1.HookRun) string {
	switch run.Outcome {
	case writv1.HookOutcome_HOOK_OUTCOME_TIMED_OUT:
		return "timed out"
	case writv1.HookOutcome_HOOK_OUTCOME_NONE:
		return "is not configured at the agent"
	default:
		return "failed"
	}
}

// timeOut gives up waiting for a hook whose agent has not answered.
func (x *Machine) timeOut(m lease.Moment, p *promotion) {
	n, open := x.nextNeed(p)
	if !open {
		return
	}
	at := lastRun(p.rec, n)
	if at < 0 || !pending(p.rec.Hooks[at]) || m.Now < p.asked.Add(x.hookTimeout(p.group, n.kind)) {
		return
	}
	x.changePromotion(p, func(rec *writv1.Promotion) {
		rec.Hooks[at].Outcome, rec.Hooks[at].At = writv1.HookOutcome_HOOK_OUTCOME_TIMED_OUT, timestamppb.New(m.Wall)
	})
	x.noteHook(p, p.rec.Hooks[at], "quorum", "")
}

// noteHook tells how a hook went. more are names and texts that its record says besides.
func (x *Machine) noteHook(p *promotion, run *writv1.HookRun, actor, reason string, more ...string) {
	detail := map[string]string{
		"group": p.rec.Group, "hook": hookName(run.Kind), "region": run.Region, "step": strconv.FormatUint(run.Step, 10),
		"outcome": outcomeName(run.Outcome), "percent": strconv.FormatUint(uint64(run.Percent), 10)}
	for pair := range slices.Chunk(more, 2) {
		detail[pair[0]] = pair[1]
	}
	x.note(lease.Note{Actor: actor, Action: "promotion.hook", Target: p.rec.Id, Reason: reason, Detail: detail})
}

func outcomeName(o writv1.HookOutcome) string {
	return strings.ToLower(strings.TrimPrefix(o.String(), "HOOK_OUTCOME_"))
}

// giveUp ends what has been asked for in a region ("" for all) and not been answered. What nothing waits for may stay.
func giveUp(rec *writv1.Promotion, region string, keepBystanders bool) {
	for _, run := range rec.Hooks {
		bystander := run.Kind == writv1.HookKind_HOOK_KIND_DEMOTE || run.Kind == writv1.HookKind_HOOK_KIND_REINSTATE
		if pending(run) && (region == "" || run.Region == region) && (!bystander || !keepBystanders) {
			run.Outcome, run.Skipped, run.Output = writv1.HookOutcome_HOOK_OUTCOME_FAILED, true, "not asked for any more"
		}
	}
}

// retract ends what other promotions of the group still ask of its primary: it must not be demoted by what is over.
func (x *Machine) retract(g *group, p *promotion) {
	for _, o := range g.history {
		if o != p && slices.ContainsFunc(o.rec.Hooks, func(run *writv1.HookRun) bool { return pending(run) && run.Region == g.rec.Primary }) {
			x.changePromotion(o, func(rec *writv1.Promotion) { giveUp(rec, g.rec.Primary, false) })
		}
	}
}

// askBystanders asks the regions that are not primary to follow the one that is. Nothing waits for it.
func (x *Machine) askBystanders(m lease.Moment, p *promotion, rec *writv1.Promotion) {
	regions := losers(rec)
	if rec.State == done {
		regions = []string{rec.From}
	}
	for _, region := range regions {
		if n := (need{kind: writv1.HookKind_HOOK_KIND_REINSTATE, region: region}); region != p.group.rec.Primary && x.needed(p.group, n.kind, region) != nil {
			x.ask(m, p, rec, n)
		}
	}
}

// task is what an agent is asked to do.
func (x *Machine) task(p *promotion, run *writv1.HookRun) *writv1.Task {
	rec, spec := p.rec, p.group.rec.Spec
	t := &writv1.Task{
		Group: rec.Group, Promotion: rec.Id, Epoch: uint32(x.config.Epoch), Term: x.config.Term, Step: run.Step, Kind: run.Kind,
		Resource: string(resourceOf(spec)), From: rec.From, To: rec.To, Mode: rec.Mode, Token: rec.Token, OldToken: rec.ExpectedToken,
		Percent: run.Percent, Timeout: durationpb.New(timeoutOf(hookOf(spec, run.Kind))), Traceparent: PresentSpan(rec),
	}
	switch {
	case run.Kind == writv1.HookKind_HOOK_KIND_DRAIN || rec.State == undraining || rec.State == cancelled:
		t.Token, t.OldToken = rec.ExpectedToken, 0
	case run.Kind == writv1.HookKind_HOOK_KIND_PROMOTE:
		t.Position = rec.Drained
	case shiftsBack(rec, run):
		t.From, t.To = rec.To, rec.From
	case run.Kind == writv1.HookKind_HOOK_KIND_REINSTATE:
		for _, lost := range rec.Tails {
			if lost.From == run.Region {
				t.Position = lost.LastOfTo
			}
		}
	}
	return t
}

// hookDone takes in how a hook went.
func (x *Machine) hookDone(m lease.Moment, p *promotion, region, agent string, r *writv1.TaskResult) {
	at := slices.IndexFunc(p.rec.Hooks, func(run *writv1.HookRun) bool {
		return run.Step == r.Step && run.Region == region && run.Kind == r.Kind
	})
	if at < 0 {
		return
	}
	if run := p.rec.Hooks[at]; !pending(run) {
		if run.Outcome == writv1.HookOutcome_HOOK_OUTCOME_TIMED_OUT {
			x.noteHook(p, run, agent, "the answer came too late: "+outcomeName(known(r.Outcome)))
		}
		return
	}
	x.changePromotion(p, func(rec *writv1.Promotion) {
		run := rec.Hooks[at]
		run.Outcome, run.Output, run.Took, run.At = known(r.Outcome), lastOutput(r.Output), r.Took, timestamppb.New(m.Wall)
		if run.Outcome != writv1.HookOutcome_HOOK_OUTCOME_DONE {
			return
		}
		switch run.Kind {
		case writv1.HookKind_HOOK_KIND_DRAIN:
			rec.Drained = placed(r.Position)
		case writv1.HookKind_HOOK_KIND_SHIFT:
			rec.Shifted = run.Percent
			if shiftsBack(rec, run) {
				rec.Shifted = 0
			}
		case writv1.HookKind_HOOK_KIND_REINSTATE:
			addEntries(rec, region, r.Entries)
		default:
		}
	})
	if r.Kind == writv1.HookKind_HOOK_KIND_REINSTATE && len(r.Entries) > 0 {
		x.noteHook(p, p.rec.Hooks[at], agent, "", "entries", entriesText(r.Entries))
	} else {
		x.noteHook(p, p.rec.Hooks[at], agent, "")
	}
	x.wake(m.Now)
}

// known is an outcome that a hook can have.
func known(o writv1.HookOutcome) writv1.HookOutcome {
	switch o {
	case writv1.HookOutcome_HOOK_OUTCOME_DONE, writv1.HookOutcome_HOOK_OUTCOME_TIMED_OUT, writv1.HookOutcome_HOOK_OUTCOME_NONE:
		return o
	default:
		return writv1.HookOutcome_HOOK_OUTCOME_FAILED
	}
}

const (
	maxHookOutput  = 4096
	maxTailEntries = 64
)

// lastOutput is the end of what a hook said.
func lastOutput(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= maxHookOutput {
		return s
	}
	s = s[len(s)-maxHookOutput:]
	for len(s) > 0 && !utf8.RuneStart(s[0]) {
		s = s[1:]
	}
	return s
}

// addEntries notes what a region found that it had lost.
func addEntries(rec *writv1.Promotion, region string, entries []string) {
	for i, lost := range slices.Backward(rec.Tails) {
		if lost.From == region {
			rec.Tails[i].Entries = append(lost.Entries, entries[:min(len(entries), maxTailEntries-min(len(lost.Entries), maxTailEntries))]...)
			return
		}
	}
}

// entriesText is what a region found that it had lost, for a record: a line each, and at the end how many there are besides.
func entriesText(entries []string) string {
	var b strings.Builder
	for i, e := range entries {
		e = strings.ReplaceAll(strings.ToValidUTF8(e, "?"), "\n", " ")
		if b.Len()+len(e) > maxHookOutput {
			fmt.Fprintf(&b, "and %d more", len(entries)-i)
			break
		}
		b.WriteString(e + "\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

//writ:core

package region

import (
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// Agents report, answer for hooks and are asked to run others, all within one poll. What they report is this coordinator's
// memory; how hooks went is stored.

const (
	// maxPollWait bounds how long a poll is kept.
	maxPollWait = 30 * time.Second
	// pollGrid is how exactly polls end, so that many of them end together.
	pollGrid = 50 * time.Millisecond
	// maxSessions is how many runs of an agent are remembered.
	maxSessions = 16
	// maxAgents bounds the agents that are remembered.
	maxAgents = 16384
	// maxPositionText bounds the texts of a position.
	maxPositionText = 256
)

// agentKey names an agent: what it says counts only for groups that name its principal for that region.
type agentKey struct{ principal, name, region string }

// agent is one agent, as far as this coordinator has heard of it.
type agent struct {
	key     agentKey
	session string
	past    []string // sessions that have ended
	call    lease.CallID
	waiting bool
	until   clock.Instant
	queued  bool // it is in ready
	known   bool // it has spoken for a group
	// answered is when this session was answered last, and told what had answered it when it sent its present poll; 0: nothing.
	answered, told clock.Instant
	// expires is when its certificate does, as it says; zero if it does not.
	expires time.Time
	// sent are the tasks that this session has been given.
	sent []sentTask
	// groups is what it was told of groups, when stand was what it says.
	groups []*writv1.AgentGroup
	stand  uint64
}

type sentTask struct {
	promotion string
	step      uint64
}

// watch is somebody who waits for a promotion to change.
type watch struct {
	id    lease.CallID
	until clock.Instant
	after int64
}

// agentPoll takes in what an agent says. It is answered at the end of a round.
func (x *Machine) agentPoll(m lease.Moment, r Request, ask *writv1.AgentPollRequest) {
	key := agentKey{string(r.Command.Principal), ask.Agent, ask.Region}
	a, err := x.agentOf(key, ask)
	if err != nil {
		x.refuse(r.ID, err)
		return
	}
	a.expires = time.Time{}
	if at := ask.CertificateExpiresAt; at != nil {
		a.expires = at.AsTime()
	}
	if !a.waiting {
		a.told = a.answered
	} else { // a newer poll ends an older one, and was sent without its answer
		x.answerPoll(m, a, nil)
	}
	for _, report := range ask.Reports {
		x.report(m, r.Intake, a, bounded(report))
	}
	for _, result := range ask.Results {
		p := x.promotions[result.Promotion]
		if p != nil && p.rec.Group == result.Group && speaksFor(p.group, key) {
			x.hookDone(m, p, key.region, key.principal, result)
		}
	}
	a.call, a.waiting = r.ID, true
	a.until = r.Intake.Add(min(max(ask.Wait.AsDuration(), 0), maxPollWait))
	if rest := time.Duration(a.until) % pollGrid; rest != 0 && ask.Wait.AsDuration() > 0 {
		a.until = a.until.Add(pollGrid - rest)
	}
	x.polls[r.ID] = a
	x.wake(a.until)
	x.queue(a)
}

// agentOf finds the agent of a poll, or says why it is refused.
func (x *Machine) agentOf(key agentKey, ask *writv1.AgentPollRequest) (*agent, *lease.Error) {
	a := x.agents[key]
	if a != nil && slices.Contains(a.past, ask.Session) {
		return nil, lease.Errorf(lease.ReasonConflict, "another run of the agent %s in %s has polled since: this one is over", key.name, key.region)
	}
	if len(x.groupsOf(a, key)) == 0 && len(ask.Reports) > 0 && slices.ContainsFunc(ask.Reports, func(r *writv1.GroupReport) bool { return x.groups[r.Group] != nil }) {
		return nil, &lease.Error{Reason: lease.ReasonDenied, Field: "region",
			Message: key.principal + " is not the agent of " + strconv.Quote(key.region) + " in any group",
			Fix:     "name it as agent of the region in the group's spec, or use the agent's own certificate"}
	}
	if a == nil {
		if len(x.agents) >= maxAgents && !x.forgetAgent() {
			return nil, lease.Errorf(lease.ReasonLimit, "%d agents poll already", len(x.agents))
		}
		a = &agent{key: key, session: ask.Session}
		x.agents[key] = a
	}
	if !a.known && len(x.groupsOf(a, key)) > 0 {
		a.known = true
		x.note(lease.Note{Actor: key.principal, Action: "agent.first-seen", Target: key.name, Detail: map[string]string{
			"region": key.region, "session": ask.Session, "version": ask.SoftwareVersion}})
	}
	if a.session != ask.Session {
		a.past = append(a.past, a.session)
		a.past = a.past[max(0, len(a.past)-maxSessions):]
		a.session, a.sent, a.answered = ask.Session, nil, 0
	}
	return a, nil
}

// forgetAgent drops the agent that has been silent for the longest; false if all are polling.
func (x *Machine) forgetAgent() bool {
	var oldest *agent
	//writ:unordered the oldest, and the first by its name of several
	for _, a := range x.agents {
		if !a.waiting && (oldest == nil || a.before(oldest)) {
			oldest = a
		}
	}
	if oldest == nil {
		return false
	}
	delete(x.agents, oldest.key)
	return true
}

func (a *agent) before(o *agent) bool {
	if a.answered != o.answered {
		return a.answered < o.answered
	}
	return a.key.principal+"\x00"+a.key.region+"\x00"+a.key.name < o.key.principal+"\x00"+o.key.region+"\x00"+o.key.name
}

// bounded is a report without what is too long to be kept, or to be signed.
func bounded(r *writv1.GroupReport) *writv1.GroupReport {
	if placed(r.Position) == r.Position && placed(r.Upstream) == r.Upstream && len(r.Detail) <= maxHookOutput &&
		len(r.ConfigDigest) <= maxPositionText && len(r.Peers) <= maxListed && len(r.Hooks) <= maxListed {
		return r
	}
	r = proto.CloneOf(r)
	r.Position, r.Upstream, r.Detail = placed(r.Position), placed(r.Upstream), lastOutput(r.Detail)
	if len(r.ConfigDigest) > maxPositionText {
		r.ConfigDigest = ""
	}
	r.Peers, r.Hooks = r.Peers[:min(len(r.Peers), maxListed)], r.Hooks[:min(len(r.Hooks), maxListed)]
	return r
}

// placed is a position that can be kept; one that is too long is none.
func placed(p *writv1.Position) *writv1.Position {
	if p != nil && (len(p.Log) > maxPositionText || len(p.Text) > maxPositionText) {
		return nil
	}
	return p
}

// speaksFor says whether an agent's principal is that of its region in a group.
func speaksFor(g *group, key agentKey) bool {
	r := findRegion(g.rec.Spec, key.region)
	return r != nil && r.Agent != "" && r.Agent == key.principal
}

// report takes in what an agent says of a group. It is kept as it came: there are many of them, and few are looked at.
func (x *Machine) report(m lease.Moment, intake clock.Instant, a *agent, report *writv1.GroupReport) {
	g := x.groups[report.Group]
	if g == nil {
		return
	}
	v := x.view(g, a.key.region)
	if v == nil || v.principal == "" || v.principal != a.key.principal || v.report != nil && intake < v.at {
		return
	}
	old, oldAt := v.report, v.at
	v.report, v.at, v.agent, v.looked = report, intake, a, 0
	if report.Age != nil && a.told != 0 {
		v.looked = a.told.Add(-max(report.Age.AsDuration(), 0))
	}
	x.observed(m, g, v, old, oldAt)
}

// viewRegions keeps what is known of a group's regions in step with its spec.
func (x *Machine) viewRegions(g *group) {
	views := make([]*regionView, 0, len(g.rec.Spec.Regions))
	for _, r := range g.rec.Spec.Regions {
		v := x.view(g, r.Name)
		if v == nil || v.principal != r.Agent {
			v = &regionView{name: r.Name, principal: r.Agent}
		}
		views = append(views, v)
	}
	g.regions = views
}

func (x *Machine) view(g *group, region string) *regionView {
	for _, v := range g.regions {
		if v.name == region {
			return v
		}
	}
	return nil
}

// fresh answers a region's report if it counts, nil if it is too old or there is none: then nothing is known of the region.
func (x *Machine) fresh(m lease.Moment, g *group, region string) *writv1.GroupReport {
	v := x.sight(g, region)
	if v == nil || v.report == nil || m.Now.Sub(v.at) > x.freshFor() {
		return nil
	}
	return v.report
}

// queue has a poll looked at when the round ends.
func (x *Machine) queue(a *agent) {
	if !a.queued {
		a.queued = true
		x.ready = append(x.ready, a)
	}
}

// rouse has the polls of a region's agents looked at: there is a task.
func (x *Machine) rouse(g *group, region string) {
	if v := x.sight(g, region); v != nil && v.agent != nil {
		x.queue(v.agent)
	}
}

// answerPolls answers those that there is something for.
func (x *Machine) answerPolls(m lease.Moment) {
	ready := x.ready
	x.ready = x.ready[:0]
	for _, a := range ready {
		a.queued = false
		if !a.waiting {
			continue
		}
		all, fresh := x.tasksFor(a)
		switch {
		case m.Now >= a.until:
			x.answerPoll(m, a, all)
		case fresh:
			x.answerPoll(m, a, all)
		}
	}
}

// wakePolls ends polls, and waits for promotions, whose time is over.
func (x *Machine) wakePolls(m lease.Moment) {
	var over []lease.CallID
	//writ:unordered sorted below
	for id, a := range x.polls {
		if m.Now >= a.until {
			over = append(over, id)
		} else {
			x.wake(a.until)
		}
	}
	slices.Sort(over)
	for _, id := range over {
		x.queue(x.polls[id])
	}
	over = over[:0]
	//writ:unordered sorted below
	for id, p := range x.watches {
		for _, w := range p.waiters {
			if w.id == id && m.Now >= w.until {
				over = append(over, id)
			} else if w.id == id {
				x.wake(w.until)
			}
		}
	}
	slices.Sort(over)
	for _, id := range over {
		p := x.watches[id]
		x.forgetWatch(p, id)
		x.reply(id, x.show(m, p))
	}
}

// tasksFor lists what an agent is asked for, by step; fresh: this session has not been given one of them.
func (x *Machine) tasksFor(a *agent) (all []*writv1.Task, fresh bool) {
	for _, p := range x.asking {
		if !speaksFor(p.group, a.key) {
			continue
		}
		for _, run := range p.rec.Hooks {
			if pending(run) && run.Region == a.key.region {
				all = append(all, x.task(p, run))
				fresh = fresh || !slices.Contains(a.sent, sentTask{p.rec.Id, run.Step})
			}
		}
	}
	slices.SortStableFunc(all, func(s, t *writv1.Task) int { return compareNumbers(s.Step, t.Step) })
	return all, fresh
}

// answerPoll answers the poll of an agent, which waits.
func (x *Machine) answerPoll(m lease.Moment, a *agent, tasks []*writv1.Task) {
	for _, t := range tasks {
		if s := (sentTask{t.Promotion, t.Step}); !slices.Contains(a.sent, s) {
			a.sent = append(a.sent, s)
		}
	}
	if len(a.sent) > 2*maxHookRuns {
		a.sent = slices.Delete(a.sent, 0, maxHookRuns)
	}
	delete(x.polls, a.call)
	a.waiting, a.answered = false, m.Now
	x.reply(a.call, &writv1.AgentPollResponse{Tasks: tasks, Interval: durationpb.New(x.config.Interval), Groups: x.groupsOf(a, a.key)})
}

// groupsOf lists the groups that an agent speaks for. The list is shared between answers for as long as nothing changes.
func (x *Machine) groupsOf(a *agent, key agentKey) []*writv1.AgentGroup {
	if a != nil && a.stand == x.stand && a.groups != nil {
		return a.groups
	}
	groups := []*writv1.AgentGroup{}
	for _, name := range x.names {
		if g := x.groups[name]; speaksFor(g, key) {
			groups = append(groups, &writv1.AgentGroup{Group: name, Resource: string(resourceOf(g.rec.Spec)), Primary: g.rec.Primary, Token: g.rec.Token})
		}
	}
	if a != nil {
		a.groups, a.stand = groups, x.stand
	}
	return groups
}

// gone forgets somebody who does not wait any more.
func (x *Machine) gone(id lease.CallID) {
	if a := x.polls[id]; a != nil {
		a.waiting = false
		delete(x.polls, id)
	}
	if p := x.watches[id]; p != nil {
		x.forgetWatch(p, id)
	}
	x.later = slices.DeleteFunc(x.later, func(r Request) bool { return r.ID == id })
}

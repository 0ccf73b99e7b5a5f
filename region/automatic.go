//writ:core

package region

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/region/approval"
)

// automaticValidity is for how long an automatic promotion may go on trying to begin. What it rests on changes by the second.
const automaticValidity = 5 * time.Minute

// automatic is what is remembered of what agents say. Nothing of it is stored: a new coordinator begins to look anew, and so
// waits for the whole hold.
type automatic struct {
	// begun is since when this coordinator looks; silence counts from then at the earliest.
	begun  clock.Instant
	sights map[sightKey]*sight
}

// sightKey: observer says that about cannot be reached, or has failed where both are one.
type sightKey struct{ observer, about string }

// sight is something that an observer has said in every report since then, without a gap.
type sight struct {
	since clock.Instant
	wall  time.Time
}

// forgetEvidence begins to look at a group anew.
func (x *Machine) forgetEvidence(m lease.Moment, g *group) { g.automatic = automatic{begun: m.Now} }

// observed takes in a region's report, which r has; oldAt is when the one before was taken in, if old is not nil.
func (x *Machine) observed(m lease.Moment, g *group, r *regionView, old *writv1.GroupReport, oldAt clock.Instant) {
	gap := old == nil || r.at.Sub(oldAt) > x.freshFor()
	note := func(about string, holds bool) {
		key := sightKey{r.name, about}
		switch {
		case !holds:
			delete(g.sights, key)
		case g.sights[key] == nil || gap:
			if g.sights == nil {
				g.sights = map[sightKey]*sight{}
			}
			g.sights[key] = &sight{since: r.at, wall: m.Wall}
		}
	}
	for _, about := range g.rec.Spec.Regions {
		if about.Name == r.name {
			note(about.Name, r.report.Health == writv1.Health_HEALTH_FAILED)
			continue
		}
		at := slices.IndexFunc(r.report.Peers, func(p *writv1.PeerReport) bool { return p.GetRegion() == about.Name })
		note(about.Name, at >= 0 && !r.report.Peers[at].Reachable)
	}
	if len(g.rec.Spec.Automatic) > 0 && g.rec.Primary != "" {
		x.wakeForEvidence(m, g, m.Now)
	}
}

// down is what is known of a region that may be lost, and what is missing for saying that it is.
type down struct {
	evidence []*writv1.Evidence
	blocks   []string
	// at is when the blocks that only wait for time are over; Never if there is another.
	at clock.Instant
}

func (d *down) block(at clock.Instant, format string, args ...any) {
	d.blocks = append(d.blocks, fmt.Sprintf(format, args...))
	d.at = max(d.at, at)
}

// isDown holds what agents say of a region against the hold. Every other region with an agent has to say that it cannot be
// reached, two at least; and its own agent is silent, or says that it has failed. Who is not heard of says nothing.
func (x *Machine) isDown(m lease.Moment, g *group, region string) down {
	var d down
	hold := durationOf(g.rec.Spec.Hold, DefaultHold)
	watchers := observers(g.rec.Spec, region)
	if len(watchers) < 2 {
		d.block(clock.Never, "fewer than two other regions have an agent that could see %s", region)
	}
	for _, o := range watchers {
		s := g.sights[sightKey{o.Name, region}]
		switch {
		case x.fresh(m, g, o.Name) == nil:
			d.block(clock.Never, "nothing is heard of the agent of %s", o.Name)
		case s == nil:
			d.block(clock.Never, "%s does not say that %s is unreachable", o.Name, region)
		case m.Now.Sub(s.since) < hold:
			d.block(s.since.Add(hold), "%s has said that %s is unreachable for %s, and hold is %s", o.Name, region, seconds(m.Now.Sub(s.since)), hold)
		default:
			d.evidence = append(d.evidence, &writv1.Evidence{Observer: o.Name, About: region, What: "unreachable", Since: timestamppb.New(s.wall)})
		}
	}
	x.isSilent(m, g, region, hold, &d)
	return d
}

// isSilent looks at what the region's own agent says, or does not.
func (x *Machine) isSilent(m lease.Moment, g *group, region string, hold time.Duration, d *down) {
	if findRegion(g.rec.Spec, region).GetAgent() == "" {
		d.block(clock.Never, "%s has no agent whose silence would say anything", region)
		return
	}
	if s := g.sights[sightKey{region, region}]; s != nil && x.fresh(m, g, region) != nil {
		if m.Now.Sub(s.since) < hold {
			d.block(s.since.Add(hold), "%s has said that it has failed for %s, and hold is %s", region, seconds(m.Now.Sub(s.since)), hold)
			return
		}
		d.evidence = append(d.evidence, &writv1.Evidence{Observer: region, About: region, What: "failed", Since: timestamppb.New(s.wall)})
		return
	}
	last := g.begun
	if v := x.view(g, region); v != nil && v.report != nil {
		last = max(last, v.at)
	}
	silent := m.Now.Sub(last)
	if silent < hold {
		at := last.Add(hold)
		if x.fresh(m, g, region) != nil {
			at = clock.Never // it has to fall silent first
		}
		d.block(at, "the agent of %s has been silent for %s, and hold is %s", region, seconds(silent), hold)
		return
	}
	d.evidence = append(d.evidence, &writv1.Evidence{Observer: "quorum", About: region, What: "its agent is silent", Since: timestamppb.New(m.Wall.Add(-silent))})
}

func seconds(d time.Duration) time.Duration { return d.Truncate(time.Second) }

// judgeDirection says what an automatic promotion in a direction rests on, and what stands in its way.
func (x *Machine) judgeDirection(m lease.Moment, g *group, from, to string) down {
	spec := g.rec.Spec
	d := x.isDown(m, g, from)
	if !hasDirection(spec, &writv1.Direction{From: from, To: to}) {
		d.block(clock.Never, "from %s to %s is not automatic", from, to)
	}
	if spec.DrillOf != "" {
		d.block(clock.Never, "the group is a drill, which people begin")
	}
	x.judgeGuards(g, from, &d)
	x.judgeTarget(m, g, from, to, &d)
	return d
}

// judgeGuards: every guard of the old side, and every other one that covers the resource, has to be fenceable without help, or be
// fenced already. That it is out does not mean that: it may admit by a rule of before, or its storage by itself.
func (x *Machine) judgeGuards(g *group, from string, d *down) {
	known := x.tenures.TenureGuards(resourceOf(g.rec.Spec))
	listed := findRegion(g.rec.Spec, from).GetGuards()
	if len(listed) == 0 {
		d.block(clock.Never, "no guards are listed for %s", from)
	}
	for _, name := range listed {
		if !slices.ContainsFunc(known, func(k lease.TenureGuard) bool { return k.Name == name }) {
			d.block(clock.Never, "guard %s of %s is not enrolled, so that nothing is known of what it admits", name, from)
		}
	}
	for _, k := range known {
		if !k.Fenceable && !k.Proved {
			d.block(clock.Never, "guard %s may go on admitting writes without contact", k.Name)
		}
	}
}

func (x *Machine) judgeTarget(m lease.Moment, g *group, from, to string, d *down) {
	spec := g.rec.Spec
	if slices.Contains(g.rec.Quarantined, to) {
		d.block(clock.Never, "the data of %s has to be settled first", to)
	}
	report := x.fresh(m, g, to)
	switch {
	case report == nil:
		return // said above: every observer has to be heard of, and the target is one
	case report.Health != writv1.Health_HEALTH_OK:
		d.block(clock.Never, "%s does not say of itself that it is healthy", to)
	case spec.Headroom > 0 && (report.Headroom == nil || *report.Headroom < spec.Headroom):
		d.block(clock.Never, "%s has not the headroom of %s", to, perMille(spec.Headroom))
	}
	lost := x.estimate(m, g, &writv1.Promotion{From: from, To: to, Mode: writv1.PromotionMode_PROMOTION_MODE_FAILOVER})
	switch {
	case spec.Rpo == nil:
		d.block(clock.Never, "the group has no rpo")
	case lost.Bytes == nil && lost.Time == nil:
		d.block(clock.Never, "what would be lost is not known")
	case !within(lost, spec.Rpo) && lost.Bytes == nil && spec.Rpo.Bytes != nil && spec.Rpo.Time == nil:
		d.block(clock.Never, "what would be lost is above the rpo, or not known: %s; what %s wrote since it was last heard of is bounded by time alone, and the rpo has none", lossWords(lost), from)
	case !within(lost, spec.Rpo):
		d.block(clock.Never, "what would be lost is above the rpo, or not known: %s", lossWords(lost))
	}
}

func lossWords(lost *writv1.Tail) string {
	words := "an unknown number of bytes"
	if lost.Bytes != nil {
		words = fmt.Sprintf("%d bytes", *lost.Bytes)
	} else if least, known := leastBytes(lost); known {
		words = fmt.Sprintf("at least %d bytes", least)
	}
	if lost.Time != nil {
		return words + ", " + seconds(lost.Time.AsDuration()).String()
	}
	return words + ", of an unknown time"
}

// judgeFlapping keeps automatic promotions apart from each other, and from whatever else is under way. It blocks new ones
// only: one that has been made goes on.
func (x *Machine) judgeFlapping(m lease.Moment, g *group, d *down) {
	rec := g.rec
	if rec.State != writv1.GroupState_GROUP_STATE_STEADY {
		d.block(clock.Never, "the group is %s", groupStateName(rec.State))
	}
	for _, p := range x.openOf(g) {
		d.block(clock.Never, "the promotion %s is open", p.rec.Id)
	}
	apart := func(since *timestamppb.Timestamp, span *durationpb.Duration, otherwise time.Duration, what string) {
		if since == nil {
			return
		}
		// By the wall clock, which outlives coordinators; one that was set back counts as no time at all.
		wanted := durationOf(span, otherwise)
		if passed := max(0, m.Wall.Sub(since.AsTime())); passed < wanted {
			d.block(m.Now.Add(wanted-passed), "%s %s ago, and automatic promotions leave it alone for %s", what, seconds(passed), wanted)
		}
	}
	apart(rec.Since, rec.Spec.Dwell, DefaultDwell, rec.Primary+" became primary")
	apart(rec.LastAutomaticAt, rec.Spec.Window, DefaultWindow, "the last automatic promotion was")
}

// reviewGroups looks at the evidence of all groups that promote automatically. It comes when something is due.
func (x *Machine) reviewGroups(m lease.Moment) {
	for _, name := range x.names {
		g := x.groups[name]
		if len(g.sights) == 0 || len(g.rec.Spec.Automatic) == 0 || g.rec.State != writv1.GroupState_GROUP_STATE_STEADY {
			continue
		}
		x.promoteAutomatically(m, g)
		x.wakeForEvidence(m, g, m.Now+1)
	}
}

// choices are the directions from the present primary, of which the target that is preferred comes first.
func choices(g *group) []*writv1.Direction {
	var all []*writv1.Direction
	for _, d := range g.rec.Spec.Automatic {
		if d.From == g.rec.Primary {
			all = append(all, d)
		}
	}
	slices.SortStableFunc(all, func(a, b *writv1.Direction) int {
		return int(findRegion(g.rec.Spec, b.To).GetPriority()) - int(findRegion(g.rec.Spec, a.To).GetPriority())
	})
	return all
}

func (x *Machine) promoteAutomatically(m lease.Moment, g *group) {
	for _, c := range choices(g) {
		d := x.judgeDirection(m, g, c.From, c.To)
		if x.judgeFlapping(m, g, &d); len(d.blocks) > 0 {
			continue
		}
		earliest := d.evidence[0].Since
		for _, e := range d.evidence {
			if e.Since.AsTime().Before(earliest.AsTime()) {
				earliest = e.Since
			}
		}
		_, err := x.propose(m, planned{
			group: g, requester: "quorum", automatic: true, evidence: d.evidence,
			ask: &writv1.PlanRequest{
				Group: g.name, To: c.To, Mode: writv1.PromotionMode_PROMOTION_MODE_FAILOVER, LossCap: g.rec.Spec.Rpo, DetectedAt: earliest,
				Reason: c.From + " is lost: every other region says so", ExpectedToken: g.rec.Token, ValidFor: durationpb.New(min(automaticValidity, approval.Validity(x.orOwn(x.ruleFor(g, writv1.PromotionMode_PROMOTION_MODE_FAILOVER))))),
			},
		})
		if err == nil {
			return
		}
		x.wake(m.Now.Add(x.freshFor()))
	}
}

// wakeForEvidence asks for a tick when nothing but time is missing any more, if that is not before earliest: what cannot be
// seen to change is looked at again with the next report.
func (x *Machine) wakeForEvidence(m lease.Moment, g *group, earliest clock.Instant) {
	if len(g.sights) == 0 {
		return
	}
	for _, c := range choices(g) {
		d := x.isDown(m, g, c.From)
		if x.judgeFlapping(m, g, &d); d.at != clock.Never && max(d.at, m.Now) >= earliest {
			x.wake(max(d.at, m.Now))
		}
	}
}

// evidenceMissing says what an automatic promotion lacks; "" if its evidence holds still.
func (x *Machine) evidenceMissing(m lease.Moment, p *promotion) string {
	return strings.Join(x.judgeDirection(m, p.group, p.rec.From, p.rec.To).blocks, "; ")
}

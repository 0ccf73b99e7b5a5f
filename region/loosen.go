//writ:core

package region

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/region/approval"
)

// changes is what a change of a spec does, in words.
type changes struct {
	all []string
	// loosens: one of them weakens a rule that keeps a promotion safe, so that people have to agree.
	loosens bool
	// loosened are the rules of the group that ask for less afterwards, as they were; nil: the approvers' own.
	loosened []*writv1.ApprovalRule
}

func (c *changes) neutral(format string, args ...any) {
	c.all = append(c.all, fmt.Sprintf(format, args...))
}

func (c *changes) loose(format string, args ...any) {
	c.all = append(c.all, "loosens: "+fmt.Sprintf(format, args...))
	c.loosens = true
}

// step tells of a number that loosens when it goes one way.
func (c *changes) step(loosens bool, what string, from, to any) {
	if loosens {
		c.loose("%s from %v to %v", what, from, to)
		return
	}
	c.neutral("%s from %v to %v", what, from, to)
}

// compareSpecs tells how one spec differs from another, both normal. own is the approvers' rule, nil if there are none.
func compareSpecs(from, to *writv1.GroupSpec, own *writv1.ApprovalRule) changes {
	var c changes
	if proto.Equal(from, to) {
		return c
	}
	c.regions(from, to)
	c.numbers(from, to)
	c.directions(from, to)
	c.hooks(from, to)
	c.rules(from, to, own)
	if len(c.all) == 0 {
		c.neutral("the order of what is listed")
	}
	return c
}

func (c *changes) regions(from, to *writv1.GroupSpec) {
	for _, r := range to.Regions {
		old := findRegion(from, r.Name)
		if old == nil {
			if r.Role == writv1.RegionRole_REGION_ROLE_WITNESS {
				c.neutral("region %s is new, a witness", r.Name)
			} else {
				c.loose("region %s is new, and may become primary", r.Name)
			}
			continue
		}
		c.region(old, r)
	}
	for _, r := range from.Regions {
		switch {
		case findRegion(to, r.Name) != nil:
		case len(r.Guards) > 0:
			c.loose("region %s is gone, and with it what its guards had to prove", r.Name)
		case r.Agent != "" && len(to.Automatic) > 0:
			c.loose("region %s is gone, whose agent had to agree to automatic promotions", r.Name)
		default:
			c.neutral("region %s is gone", r.Name)
		}
	}
}

func (c *changes) region(from, to *writv1.GroupRegion) {
	if from.Role != to.Role {
		c.step(from.Role == writv1.RegionRole_REGION_ROLE_WITNESS, to.Name+": role", roleWord(from.Role), roleWord(to.Role))
	}
	if from.Priority != to.Priority {
		c.neutral("%s: priority from %d to %d", to.Name, from.Priority, to.Priority)
	}
	if from.Agent != to.Agent {
		// Whoever speaks for a region says what would be lost, and runs its hooks.
		c.loose("%s: its agent from %q to %q", to.Name, from.Agent, to.Agent)
	}
	for _, guard := range from.Guards {
		if !slices.Contains(to.Guards, guard) {
			c.loose("%s: guard %s need not be proved any more", to.Name, guard)
		}
	}
	for _, guard := range to.Guards {
		if !slices.Contains(from.Guards, guard) {
			c.neutral("%s: guard %s has to be proved", to.Name, guard)
		}
	}
	for _, writer := range to.Writers {
		if !slices.Contains(from.Writers, writer) {
			c.loose("%s: %s may have writs", to.Name, writer)
		}
	}
	for _, writer := range from.Writers {
		if !slices.Contains(to.Writers, writer) {
			c.neutral("%s: %s may not have writs any more", to.Name, writer)
		}
	}
}

func roleWord(r writv1.RegionRole) string {
	switch r {
	case writv1.RegionRole_REGION_ROLE_PRIMARY:
		return "primary"
	case writv1.RegionRole_REGION_ROLE_STANDBY:
		return "standby"
	default:
		return "witness"
	}
}

func (c *changes) numbers(from, to *writv1.GroupSpec) {
	c.rpo(from.Rpo, to.Rpo)
	if from.Headroom != to.Headroom {
		c.step(to.Headroom < from.Headroom, "headroom", from.Headroom, to.Headroom)
	}
	for _, d := range []struct {
		what     string
		from, to *durationpb.Duration
		shorter  bool // loosens
	}{
		{"hold", from.Hold, to.Hold, true}, {"dwell", from.Dwell, to.Dwell, true}, {"window", from.Window, to.Window, true}, {"drain", from.Drain, to.Drain, false},
	} {
		if a, b := d.from.AsDuration(), d.to.AsDuration(); a != b {
			c.step(d.shorter && b < a, d.what, a, b)
		}
	}
	if !slices.Equal(from.Shift, to.Shift) {
		c.neutral("shift from %v to %v", from.Shift, to.Shift)
	}
}

// rpo tells of the limit that losses are held to. Without one no loss is accepted that people have not signed for, but neither is
// the target's lag looked at before A is fenced: so it loosens to give one up, as well as to begin with one.
func (c *changes) rpo(from, to *writv1.Loss) {
	if proto.Equal(from, to) {
		return
	}
	gone := to == nil && (from.Time != nil || from.Bytes != nil)
	c.step(gone || looserLimit(from, to), "rpo", limitText(from), limitText(to))
}

func limitText(l *writv1.Loss) string {
	switch {
	case l == nil:
		return "none"
	case l.Time == nil && l.Bytes == nil:
		return "any loss"
	case l.Bytes == nil:
		return bound(l.Time)
	case l.Time == nil:
		return bytesBound(l) + " bytes"
	}
	return bound(l.Time) + " and " + bytesBound(l) + " bytes"
}

func bound(d *durationpb.Duration) string {
	if d == nil {
		return "any"
	}
	return d.AsDuration().String()
}

func bytesBound(l *writv1.Loss) string {
	if l == nil || l.Bytes == nil {
		return "any"
	}
	return fmt.Sprint(*l.Bytes)
}

func (c *changes) directions(from, to *writv1.GroupSpec) {
	for _, d := range to.Automatic {
		if !hasDirection(from, d) {
			c.loose("from %s to %s is automatic", d.From, d.To)
			c.loosened = append(c.loosened, from.GetApprovals().GetFailover()) // that nobody signs any more
		}
	}
	for _, d := range from.Automatic {
		if !hasDirection(to, d) {
			c.neutral("from %s to %s is not automatic any more", d.From, d.To)
		}
	}
}

func hasDirection(s *writv1.GroupSpec, d *writv1.Direction) bool {
	return slices.ContainsFunc(s.Automatic, func(o *writv1.Direction) bool { return o.From == d.From && o.To == d.To })
}

func findHook(s *writv1.GroupSpec, kind writv1.HookKind) *writv1.Hook {
	i := slices.IndexFunc(s.Hooks, func(h *writv1.Hook) bool { return h.Kind == kind })
	if i < 0 {
		return nil
	}
	return s.Hooks[i]
}

func (c *changes) hooks(from, to *writv1.GroupSpec) {
	for _, h := range from.Hooks {
		name := hookName(h.Kind)
		switch next := findHook(to, h.Kind); {
		case next == nil && h.Optional:
			c.neutral("hook %s is gone", name)
		case next == nil:
			c.loose("hook %s is not needed any more", name)
		default:
			if next.Optional != h.Optional {
				c.step(next.Optional, "hook "+name+": optional", h.Optional, next.Optional)
			}
			if a, b := h.Timeout.AsDuration(), next.Timeout.AsDuration(); a != b {
				c.neutral("hook %s: timeout from %v to %v", name, a, b)
			}
		}
	}
	for _, h := range to.Hooks {
		if findHook(from, h.Kind) == nil {
			c.neutral("hook %s is new", hookName(h.Kind))
		}
	}
}

func (c *changes) rules(from, to *writv1.GroupSpec, own *writv1.ApprovalRule) {
	before, after := rulesOf(from), rulesOf(to)
	for i, r := range after {
		if proto.Equal(before[i].rule, r.rule) {
			continue
		}
		looser := looserRule(before[i].rule, r.rule, own)
		for _, what := range looser {
			c.loose("%s: %s", r.field, what)
		}
		if len(looser) == 0 {
			c.neutral("%s: asks for no less than before", r.field)
			continue
		}
		c.loosened = append(c.loosened, before[i].rule)
	}
}

// looserRule says what a rule asks less for than another. An absent one is the approvers' own.
func looserRule(from, to, own *writv1.ApprovalRule) []string {
	if own != nil {
		if from == nil {
			from = own
		}
		if to == nil {
			to = own
		}
	}
	return approval.Loosens(from, to)
}

// compareNew tells what a spec does that a group begins with. It loosens if it is less strict than the approvers are with
// themselves; without approvers there is no rule that it could weaken.
func compareNew(spec *writv1.GroupSpec, own *writv1.ApprovalRule) changes {
	var c changes
	c.neutral("group %s is new", spec.Name)
	if own == nil || spec.DrillOf != "" {
		return c
	}
	for _, d := range spec.Automatic {
		c.loose("from %s to %s is automatic", d.From, d.To)
	}
	for _, r := range rulesOf(spec) {
		for _, what := range looserRule(nil, r.rule, own) {
			c.loose("%s: %s", r.field, what)
		}
	}
	return c
}

// durationOf is a duration, or another where there is none.
func durationOf(d *durationpb.Duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return d.AsDuration()
}

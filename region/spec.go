//writ:core

package region

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region/approval"
)

// What a group has where its spec says nothing.
const (
	// DefaultHold is for how long evidence has to hold before an automatic promotion.
	DefaultHold = time.Minute
	// DefaultDwell is for how long automatic promotions leave a new primary alone.
	DefaultDwell = 10 * time.Minute
	// DefaultWindow is the time in which there is at most one automatic promotion.
	DefaultWindow = time.Hour
	// DefaultDrain is how long a switchover may take to drain A, and to let B catch up.
	DefaultDrain = time.Minute
	// DefaultHookTimeout is how long a hook may take.
	DefaultHookTimeout = 30 * time.Second
)

// Bounds of what a spec may ask for.
const (
	// MaxGroupRegions bounds the regions of a group.
	MaxGroupRegions = 16
	// MinHold is the least hold: a shorter one would take a pause of the network for the loss of a region.
	MinHold = 10 * time.Second
	// MaxGroupWait bounds hold, drain and the timeouts of hooks.
	MaxGroupWait = time.Hour
	// MaxGroupPeriod bounds dwell and window.
	MaxGroupPeriod = 30 * 24 * time.Hour
	// MaxSpecBytes bounds a spec: its document is signed, stored and shown as a whole.
	MaxSpecBytes = 64 << 10

	maxNameBytes      = 64
	maxPrincipalBytes = 2048
	maxListed         = 64
)

const nameFix = "use 1 to 64 of a-z, 0-9 and '-', beginning with a letter"

// Normal answers the spec with everything filled in that it leaves to a default, so that what is stored and signed says all
// of it. Errors: *lease.Error with reason INVALID, which names the field by its path, such as regions[1].role, and the fix.
func Normal(spec *writv1.GroupSpec) (*writv1.GroupSpec, error) {
	n, err := normal(spec)
	if err != nil {
		return nil, err
	}
	return n, nil
}

func normal(spec *writv1.GroupSpec) (*writv1.GroupSpec, *lease.Error) {
	if spec == nil {
		return nil, lease.Invalid("spec", "is missing", "say what the group is")
	}
	if size := proto.Size(spec); size > MaxSpecBytes {
		return nil, lease.Invalid("spec", fmt.Sprintf("is %d bytes long", size), fmt.Sprintf("use at most %d", MaxSpecBytes))
	}
	n := proto.CloneOf(spec)
	fillIn(n)
	c := specCheck{spec: n}
	for _, check := range []func(){c.checkNames, c.checkRegions, c.checkNumbers, c.checkAutomatic, c.checkHooks, c.checkApprovals} {
		if check(); c.err != nil {
			return nil, c.err
		}
	}
	return n, nil
}

func fillIn(n *writv1.GroupSpec) {
	absent := func(d **durationpb.Duration, otherwise time.Duration) {
		if *d == nil {
			*d = durationpb.New(otherwise)
		}
	}
	if n.Resource == "" && n.DrillOf != "" {
		n.Resource = DrillPrefix + n.DrillOf
	} else if n.Resource == "" {
		n.Resource = n.Name
	}
	absent(&n.Hold, DefaultHold)
	absent(&n.Dwell, DefaultDwell)
	absent(&n.Window, DefaultWindow)
	absent(&n.Drain, DefaultDrain)
	for _, h := range n.Hooks {
		if h != nil {
			absent(&h.Timeout, DefaultHookTimeout)
		}
	}
	if len(n.Shift) == 0 {
		n.Shift = []uint32{100}
	}
}

// specCheck keeps the first thing that is wrong.
type specCheck struct {
	spec *writv1.GroupSpec
	err  *lease.Error
}

func (c *specCheck) wrong(field, problem, fix string) {
	if c.err == nil {
		c.err = lease.Invalid(field, problem, fix)
	}
}

// validName holds for groups, regions and what is named after them in keys, paths and host names.
func validName(s string) bool {
	if s == "" || len(s) > maxNameBytes || s[0] < 'a' || s[0] > 'z' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
	})
}

func (c *specCheck) checkNames() {
	s := c.spec
	if !validName(s.Name) {
		c.wrong("name", fmt.Sprintf("is %q", s.Name), nameFix)
		return
	}
	if s.Name == approversGroup {
		c.wrong("name", "is kept for the operations on the set of approvers", "choose another")
	}
	if _, err := lease.ParseResource(s.Resource); err != nil {
		c.wrong("resource", "is not a resource: "+err.Error(), "leave it out, to use the group's name")
	}
	drills := strings.HasPrefix(s.Resource, DrillPrefix)
	switch {
	case s.DrillOf == "" && drills:
		c.wrong("resource", "begins with "+DrillPrefix+", which is kept for drills", "choose another")
	case s.DrillOf == "":
	case !validName(s.DrillOf):
		c.wrong("drill_of", fmt.Sprintf("is %q", s.DrillOf), nameFix)
	case s.DrillOf == s.Name:
		c.wrong("drill_of", "is the group itself", "name the real group, and give the drill another name")
	case !drills:
		// Whether it is that of the real group is compared when the drill is applied.
		c.wrong("resource", fmt.Sprintf("is %q", s.Resource), "put "+DrillPrefix+" before the real group's resource: a drill never touches that itself")
	}
}

func (c *specCheck) checkRegions() {
	regions := c.spec.Regions
	switch {
	case len(regions) < 2:
		c.wrong("regions", fmt.Sprintf("has %d", len(regions)), "name two or more: one primary, and a standby that may take its place")
		return
	case len(regions) > MaxGroupRegions:
		c.wrong("regions", fmt.Sprintf("has %d", len(regions)), fmt.Sprintf("name at most %d", MaxGroupRegions))
		return
	}
	names, guards := map[string]int{}, map[string]int{}
	primary, standbys := -1, 0
	for i, r := range regions {
		field := fmt.Sprintf("regions[%d]", i)
		if r == nil {
			c.wrong(field, "is empty", "give it a name and a role")
			return
		}
		if !validName(r.Name) {
			c.wrong(field+".name", fmt.Sprintf("is %q", r.Name), nameFix)
		}
		if before, twice := names[r.Name]; twice {
			c.wrong(field+".name", fmt.Sprintf("is %q, as regions[%d].name is", r.Name, before), "name every region once")
		}
		names[r.Name] = i
		switch r.Role {
		case writv1.RegionRole_REGION_ROLE_PRIMARY:
			if primary >= 0 {
				c.wrong(field+".role", fmt.Sprintf("is primary, as regions[%d].role is", primary), "make exactly one region the primary, and the others standby or witness")
			}
			primary = i
		case writv1.RegionRole_REGION_ROLE_STANDBY:
			standbys++
		case writv1.RegionRole_REGION_ROLE_WITNESS:
		default:
			c.wrong(field+".role", fmt.Sprintf("is %d", r.Role), "use REGION_ROLE_PRIMARY, REGION_ROLE_STANDBY or REGION_ROLE_WITNESS")
		}
		c.checkRegion(field, r, guards)
	}
	if primary < 0 {
		c.wrong("regions", "has no primary", "give one of them the role REGION_ROLE_PRIMARY")
	}
	if standbys == 0 {
		c.wrong("regions", "has no standby", "give one of them the role REGION_ROLE_STANDBY: a group that cannot move needs no group")
	}
}

func (c *specCheck) checkRegion(field string, r *writv1.GroupRegion, guards map[string]int) {
	if r.Priority < -lease.MaxPriority || r.Priority > lease.MaxPriority {
		c.wrong(field+".priority", fmt.Sprintf("is %d", r.Priority), fmt.Sprintf("use -%d to %d", lease.MaxPriority, lease.MaxPriority))
	}
	if len(r.Agent) > maxPrincipalBytes {
		c.wrong(field+".agent", fmt.Sprintf("is %d bytes long", len(r.Agent)), fmt.Sprintf("use at most %d", maxPrincipalBytes))
	}
	if len(r.Guards) > maxListed {
		c.wrong(field+".guards", fmt.Sprintf("has %d", len(r.Guards)), fmt.Sprintf("name at most %d", maxListed))
		return
	}
	at := slices.IndexFunc(c.spec.Regions, func(o *writv1.GroupRegion) bool { return o == r })
	for i, g := range r.Guards {
		named := fmt.Sprintf("%s.guards[%d]", field, i)
		if g == "" || len(g) > maxNameBytes {
			c.wrong(named, fmt.Sprintf("is %d bytes long", len(g)), "use the guard's name, as writ guard list shows it")
		}
		if before, twice := guards[g]; twice {
			c.wrong(named, fmt.Sprintf("is %q, which regions[%d].guards has", g, before), "name every guard once, with the region whose storage it stands before")
		}
		guards[g] = at
	}
	if len(r.Writers) > maxListed {
		c.wrong(field+".writers", fmt.Sprintf("has %d", len(r.Writers)), fmt.Sprintf("name at most %d", maxListed))
		return
	}
	for i, w := range r.Writers {
		named := fmt.Sprintf("%s.writers[%d]", field, i)
		if w == "" || len(w) > maxPrincipalBytes {
			c.wrong(named, fmt.Sprintf("is %d bytes long", len(w)), "use the principal in the writer's certificate")
		}
		if slices.Contains(r.Writers[:i], w) {
			c.wrong(named, fmt.Sprintf("is %q again", w), "name every writer once")
		}
	}
	if r.Role == writv1.RegionRole_REGION_ROLE_WITNESS && len(r.Writers) > 0 {
		c.wrong(field+".writers", "is set for a witness, which never has the tenure", "leave it out, or make the region a standby")
	}
}

func (c *specCheck) checkNumbers() {
	s := c.spec
	if s.Headroom > 1000 {
		c.wrong("headroom", fmt.Sprintf("is %d", s.Headroom), "use thousandths of the capacity, 0 to 1000")
	}
	c.checkLoss("rpo", s.Rpo)
	for _, d := range []struct {
		field    string
		d        *durationpb.Duration
		min, max time.Duration
	}{
		{"hold", s.Hold, MinHold, MaxGroupWait},
		{"dwell", s.Dwell, 0, MaxGroupPeriod},
		{"window", s.Window, 0, MaxGroupPeriod},
		{"drain", s.Drain, time.Second, MaxGroupWait},
	} {
		c.checkDuration(d.field, d.d, d.min, d.max)
	}
	for i, percent := range s.Shift {
		field := fmt.Sprintf("shift[%d]", i)
		switch {
		case percent < 1 || percent > 100:
			c.wrong(field, fmt.Sprintf("is %d", percent), "use percentages, 1 to 100")
		case i > 0 && percent <= s.Shift[i-1]:
			c.wrong(field, fmt.Sprintf("is %d, after %d", percent, s.Shift[i-1]), "let the steps ascend")
		}
	}
	if last := len(s.Shift) - 1; s.Shift[last] != 100 {
		c.wrong(fmt.Sprintf("shift[%d]", last), fmt.Sprintf("is %d", s.Shift[last]), "let the last step be 100: all of the traffic")
	}
}

func (c *specCheck) checkDuration(field string, d *durationpb.Duration, least, most time.Duration) {
	if err := d.CheckValid(); err != nil {
		c.wrong(field, "is not a duration", "use seconds, such as 60s")
		return
	}
	if v := d.AsDuration(); v < least || v > most {
		c.wrong(field, "is "+v.String(), fmt.Sprintf("use %v to %v", least, most))
	}
}

func (c *specCheck) checkLoss(field string, l *writv1.Loss) {
	if l == nil || l.Time == nil {
		return
	}
	if l.Time.CheckValid() != nil || l.Time.AsDuration() < 0 {
		c.wrong(field+".time", "is not a duration of 0 or more", "use seconds, such as 5s")
	}
}

// checkAutomatic refuses directions that could not be judged, or that lead back: a failback is never automatic.
func (c *specCheck) checkAutomatic() {
	s := c.spec
	for i, d := range s.Automatic {
		field := fmt.Sprintf("automatic[%d]", i)
		from, to := findRegion(s, d.GetFrom()), findRegion(s, d.GetTo())
		switch {
		case from == nil:
			c.wrong(field+".from", fmt.Sprintf("is %q, which is none of the regions", d.GetFrom()), "name one of the regions")
		case to == nil:
			c.wrong(field+".to", fmt.Sprintf("is %q, which is none of the regions", d.GetTo()), "name one of the regions")
		case from == to:
			c.wrong(field+".to", "is the region that it comes from", "name another region")
		case from.Role == writv1.RegionRole_REGION_ROLE_WITNESS:
			c.wrong(field+".from", fmt.Sprintf("is %q, a witness, which never has the tenure", from.Name), "name a primary or a standby")
		case to.Role == writv1.RegionRole_REGION_ROLE_WITNESS:
			c.wrong(field+".to", fmt.Sprintf("is %q, a witness, which never becomes primary", to.Name), "name a primary or a standby")
		case slices.ContainsFunc(s.Automatic[:i], func(o *writv1.Direction) bool { return proto.Equal(o, d) }):
			c.wrong(field, "is there already", "name every direction once")
		case s.DrillOf != "":
			c.wrong(field, "is of a drill", "leave it out: drills are begun by people")
		case len(from.Guards) == 0:
			c.wrong(field+".from", fmt.Sprintf("is %q, for which no guards are listed", from.Name), "list the guards before its storage: each has to be fenced without its help")
		case s.Rpo.GetTime() == nil && (s.Rpo == nil || s.Rpo.Bytes == nil):
			c.wrong("rpo", "says nothing, and automatic promotions stop at it", "say how much may be lost without asking anybody")
		case from.Agent == "":
			c.wrong(field+".from", fmt.Sprintf("is %q, which has no agent", from.Name), "give it one: its silence is part of the evidence")
		case to.Agent == "":
			c.wrong(field+".to", fmt.Sprintf("is %q, which has no agent", to.Name), "give it one: what would be lost is known from its reports")
		case len(observers(s, from.Name)) < 2:
			c.wrong(field+".from", fmt.Sprintf("is %q, which agents of fewer than two other regions observe", from.Name), "give two other regions an agent; a witness will do")
		case leads(s.Automatic[:i], to.Name, from.Name):
			c.wrong(field, "leads back to where another direction begins", "leave it out: a failback is never automatic")
		}
		if c.err != nil {
			return
		}
	}
}

// leads says whether the directions lead from one region to another. They have no cycle.
func leads(directions []*writv1.Direction, from, to string) bool {
	return slices.ContainsFunc(directions, func(d *writv1.Direction) bool {
		return d.From == from && (d.To == to || leads(directions, d.To, to))
	})
}

// observers are the other regions that have an agent, in the order of the spec.
func observers(s *writv1.GroupSpec, about string) []*writv1.GroupRegion {
	var found []*writv1.GroupRegion
	for _, r := range s.Regions {
		if r.Name != about && r.Agent != "" {
			found = append(found, r)
		}
	}
	return found
}

func findRegion(s *writv1.GroupSpec, name string) *writv1.GroupRegion {
	i := slices.IndexFunc(s.GetRegions(), func(r *writv1.GroupRegion) bool { return r.GetName() == name })
	if i < 0 {
		return nil
	}
	return s.Regions[i]
}

func (c *specCheck) checkHooks() {
	for i, h := range c.spec.Hooks {
		field := fmt.Sprintf("hooks[%d]", i)
		if h == nil || h.Kind <= 0 || h.Kind > writv1.HookKind_HOOK_KIND_REINSTATE {
			c.wrong(field+".kind", fmt.Sprintf("is %d", h.GetKind()), "use HOOK_KIND_DRAIN, _UNDRAIN, _PROMOTE, _DEMOTE, _SHIFT, _VERIFY or _REINSTATE")
			return
		}
		if slices.ContainsFunc(c.spec.Hooks[:i], func(o *writv1.Hook) bool { return o.Kind == h.Kind }) {
			c.wrong(field+".kind", fmt.Sprintf("is %s again", hookName(h.Kind)), "name every kind of hook once")
		}
		c.checkDuration(field+".timeout", h.Timeout, 100*time.Millisecond, MaxGroupWait)
		if h.Kind == writv1.HookKind_HOOK_KIND_VERIFY && h.Optional && c.spec.DrillOf == "" {
			c.wrong(field+".optional", "is set for verify", "leave it out: a canary that fails must not be passed over")
		}
	}
}

func (c *specCheck) checkApprovals() {
	for _, r := range rulesOf(c.spec) {
		mayBeNone := c.spec.DrillOf != "" || r.field == "approvals.switchover"
		if err := approval.CheckRule(r.field, r.rule, mayBeNone); err != nil && c.err == nil {
			c.err = fieldError(err)
		}
	}
}

// specRule is one of a group's rules; nil: the approvers' own.
type specRule struct {
	field string
	rule  *writv1.ApprovalRule
}

func rulesOf(s *writv1.GroupSpec) []specRule {
	a := s.GetApprovals()
	return []specRule{
		{"approvals.switchover", a.GetSwitchover()}, {"approvals.failover", a.GetFailover()},
		{"approvals.failback", a.GetFailback()}, {"approvals.change", a.GetChange()},
	}
}

package plan

import "time"

// Leader and Holder stand in a fault for whoever it is when the fault happens: the node that leads, or that of whom it is
// known to lead, and the client that holds a lease. If nobody does, the fault hits nobody.
const (
	Leader = "@leader"
	Holder = "@holder"
)

// whom is what a fault may name.
type whom string

const (
	nobody    whom = "nobody"
	anybody   whom = "nodes, clients, watchers, guards or regions"
	nodes     whom = "nodes or regions with nodes"
	disks     whom = "nodes, guards or regions with one of them"
	oneNode   whom = "one node"
	oneDisk   whom = "one node or guard"
	guards    whom = "guards"
	rules     whom = "prefixes of rules"
	groups    whom = "failover groups"
	agents    whom = "agents"
	states    whom = "states of promotions"
	resources whom = "resources of clients"
	services  whom = "services"
	jobs      whom = "cron jobs"
)

// need is whether a field of a fault is to be given.
type need int

const (
	never need = iota
	maybe
	always
)

// shape is what a fault of one kind says.
type shape struct {
	kind Kind
	a    whom
	// least is how many names A has at least.
	least   int
	b, span need
	amount  need
	by      need
	// low and high bound By.
	low, high time.Duration
}

// unseenFreeze is what a node's or holder's watchdog cannot notice of a clock that missed time.
const unseenFreeze = time.Second

var shapes = []shape{
	{kind: Cut, a: anybody, least: 1, b: maybe, span: always},
	{kind: OneWay, a: anybody, least: 1, b: maybe, span: always},
	{kind: Bridge, a: anybody, least: 2, b: maybe, span: always},
	{kind: Clog, a: anybody, least: 1, b: maybe, span: always},
	{kind: Swizzle, a: anybody, least: 1, span: always},
	{kind: Lossy, a: anybody, least: 1, b: maybe, span: always, amount: always},
	{kind: Duplicate, a: anybody, least: 1, b: maybe, span: always, amount: always},
	{kind: Slow, a: anybody, least: 1, b: maybe, span: always, by: always, low: time.Microsecond, high: time.Minute},
	{kind: Crash, a: anybody, least: 1, span: maybe},
	{kind: CrashLoop, a: anybody, least: 1, span: always, by: always, low: 10 * time.Millisecond, high: time.Hour},
	{kind: Pause, a: anybody, least: 1, span: always},
	{kind: Freeze, a: anybody, least: 1, span: maybe},
	{kind: WallJump, a: anybody, least: 1, by: always, low: -10 * 365 * 24 * time.Hour, high: 10 * 365 * 24 * time.Hour},
	{kind: SlowDisk, a: disks, least: 1, span: always, by: always, low: time.Microsecond, high: time.Minute},
	{kind: FullDisk, a: disks, least: 1, span: always},
	{kind: TornDisk, a: disks, least: 1, span: maybe},
	{kind: Wipe, a: oneDisk, least: 1, span: maybe},
	{kind: OldDisk, a: oneDisk, least: 1, span: maybe, by: always, low: time.Microsecond, high: 24 * time.Hour},
	{kind: Move, a: oneNode, least: 1},
	{kind: AddNode, a: oneNode, least: 1},
	{kind: RemoveNode, a: oneNode, least: 1},
	{kind: Force, a: resources, least: 1},
	{kind: Backup, a: nobody},
	{kind: Restore, a: nobody, span: maybe},
	{kind: NewCluster, a: oneNode, least: 1, span: maybe},
	{kind: Twice, a: anybody, span: always},
	{kind: Stop, a: guards, least: 1, span: always},
	{kind: Attest, a: guards, least: 1, span: maybe},
	{kind: Open, a: rules, least: 1},
	{kind: Close, a: rules, least: 1},
	{kind: Switchover, a: groups, least: 1},
	{kind: Failover, a: groups, least: 1},
	{kind: Abort, a: groups, least: 1},
	{kind: Ill, a: agents, least: 1, span: always},
	{kind: BadHooks, a: agents, least: 1, span: always},
	{kind: Ambush, a: states, least: 1, span: always},
	{kind: Protect, a: rules, least: 1},
	{kind: Unprotect, a: rules, least: 1},
	{kind: Forge, a: guards, least: 1, amount: always},
	{kind: Probe, a: guards, least: 1},
	{kind: ForceNow, a: resources, least: 1},
	{kind: Deploy, a: services, least: 1, span: always},
	{kind: Suspend, a: jobs, least: 1},
	{kind: Resume, a: jobs, least: 1},
	{kind: Trigger, a: jobs, least: 1},
}

// Kinds lists every kind of fault.
func Kinds() []Kind {
	kinds := make([]Kind, len(shapes))
	for i, s := range shapes {
		kinds[i] = s.kind
	}
	return kinds
}

// shapeOf finds the shape of a kind.
func shapeOf(kind Kind) (shape, bool) {
	for _, s := range shapes {
		if s.kind == kind {
			return s, true
		}
	}
	return shape{}, false
}

// one tells the kinds that concern one actor.
func (s shape) one() bool { return s.a == oneNode || s.a == oneDisk }

// network tells the kinds that concern what is between A and B.
func (s shape) network() bool { return s.b != never || s.kind == Swizzle }

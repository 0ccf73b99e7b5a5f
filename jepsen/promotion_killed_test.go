//go:build linux

package jepsen_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/jepsen/cluster"
)

// killing is a promotion that is held in a state while its coordinator is killed.
type killing struct {
	state writv1.PromotionState
	// mode of the plan. Default: a switchover.
	mode writv1.PromotionMode
	// gates are hooks that do not end before they are told to.
	gates []string
	// behind is how many bytes the target lacks, full that it has no headroom.
	behind uint64
	full   bool
	// hold holds it there, release lets it go on when another coordinator has taken over; both may be nil.
	hold, release func(l *killLab, id string)
	// ends is how it ends. Default: done.
	ends writv1.PromotionState
	// ran are the hooks that must have run.
	ran []string
}

const (
	switchingOver = writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER
	failingOver   = writv1.PromotionMode_PROMOTION_MODE_FAILOVER
)

var killings = []killing{
	{
		state: writv1.PromotionState_PROMOTION_STATE_APPROVING, ran: []string{"drain", "promote", "verify"},
		release: func(l *killLab, id string) {
			l.signBy(id, l.people[1:])
			l.execute(id)
		},
	},
	{
		state: writv1.PromotionState_PROMOTION_STATE_PREFLIGHT, full: true, ran: []string{"drain", "promote", "verify"},
		hold: func(l *killLab, id string) {
			l.execute(id)
			l.awaitStuck(id)
		},
		release: func(l *killLab, id string) {
			l.sights.set(l.group, sight{headroom: 900, position: 1000})
			l.resume(id)
		},
	},
	{state: writv1.PromotionState_PROMOTION_STATE_DRAINING, gates: []string{"drain"}, ran: []string{"drain", "promote", "verify"}},
	{
		state: writv1.PromotionState_PROMOTION_STATE_FENCING, ran: []string{"drain", "promote", "verify"},
		hold: func(l *killLab, id string) {
			if err := l.guards["eu"].Pause(); err != nil {
				l.Fatal(err)
			}
			l.execute(id)
		},
		release: func(l *killLab, _ string) {
			if _, err := l.guards["eu"].Resume(); err != nil {
				l.Fatal(err)
			}
		},
	},
	{
		state: writv1.PromotionState_PROMOTION_STATE_TAIL, mode: failingOver, behind: 100, ran: []string{"promote", "verify", "reinstate"},
		release: func(l *killLab, id string) {
			l.agree(l.openOperation(writv1.OperationKind_OPERATION_KIND_TAIL))
			l.settle(id)
		},
	},
	{state: writv1.PromotionState_PROMOTION_STATE_GRANTED, gates: []string{"promote"}, ran: []string{"drain", "promote", "verify"}},
	{state: writv1.PromotionState_PROMOTION_STATE_VERIFYING, gates: []string{"verify"}, ran: []string{"drain", "promote", "verify"}},
	{
		state: writv1.PromotionState_PROMOTION_STATE_DEGRADED, mode: failingOver, ran: []string{"promote", "verify", "reinstate"},
		release: func(l *killLab, id string) { l.settle(id) },
	},
	{
		state: writv1.PromotionState_PROMOTION_STATE_RECONCILED, mode: failingOver, gates: []string{"reinstate"},
		ran: []string{"promote", "verify", "reinstate"},
		hold: func(l *killLab, id string) {
			l.execute(id)
			l.settle(id)
		},
	},
	{
		state: writv1.PromotionState_PROMOTION_STATE_ROLLING_BACK, mode: failingOver, behind: 100, gates: []string{"undrain"},
		ran: []string{"undrain"}, ends: writv1.PromotionState_PROMOTION_STATE_ROLLED_BACK,
		hold: func(l *killLab, id string) {
			l.execute(id)
			l.reaches(id, writv1.PromotionState_PROMOTION_STATE_TAIL)
			ask(l, writv1.RegionServiceClient.Abort, &writv1.AbortRequest{Id: id, Reason: "test"})
			l.awaitRun(id, "undrain")
		},
	},
	{
		state: writv1.PromotionState_PROMOTION_STATE_UNDRAINING, gates: []string{"drain", "undrain"},
		ran: []string{"drain", "undrain"}, ends: writv1.PromotionState_PROMOTION_STATE_CANCELLED,
		hold: func(l *killLab, id string) {
			l.execute(id)
			l.awaitRun(id, "drain")
			ask(l, writv1.RegionServiceClient.Abort, &writv1.AbortRequest{Id: id, Reason: "test"})
			l.awaitRun(id, "undrain")
		},
	},
}

// holdOf is how a promotion is held: where nothing is said, its gates or what has to be signed hold it once it is executed.
func (k killing) holdOf() func(l *killLab, id string) {
	if k.hold != nil {
		return k.hold
	}
	return (*killLab).execute
}

// name is the state as people call it, group the group that is promoted.
func (k killing) name() string { return strings.TrimPrefix(k.state.String(), "PROMOTION_STATE_") }
func (k killing) group() string {
	return "g-" + strings.ToLower(strings.ReplaceAll(k.name(), "_", "-"))
}

// TestCoordinatorKilledIn kills the process of the coordinator in each state of a promotion. The next one goes on where it
// was, to the end, and no hook runs twice.
func TestCoordinatorKilledIn(t *testing.T) {
	l := startKillLab(t)
	for _, k := range killings {
		t.Run(k.name(), func(t *testing.T) { l.on(t, k.group()).kill(k) })
	}
}

// kill carries one out.
func (l *killLab) kill(k killing) {
	l.Helper()
	seen := sight{headroom: 900, position: 1000 - k.behind}
	if k.full {
		seen.headroom = 10
	}
	l.sights.set(l.group, seen)
	gates := make(map[string]*gate)
	for _, hook := range k.gates {
		gates[hook] = l.gate(hook)
	}
	group := l.ready(seen)
	id := l.plan(k)
	if k.state == writv1.PromotionState_PROMOTION_STATE_APPROVING {
		l.signBy(id, l.people[:1])
	} else {
		l.sign(id)
		k.holdOf()(l, id)
	}
	before := l.reaches(id, k.state)

	killed := l.killCoordinator()
	after := l.reaches(id, k.state)
	if after.GetRevision() < before.GetRevision() || after.GetStep() < before.GetStep() {
		l.Errorf("it was %s, and became %s", protojson.Format(before), protojson.Format(after))
	}
	if k.release != nil {
		k.release(l, id)
	}
	for _, hook := range slices.Sorted(maps.Keys(gates)) {
		gates[hook].open()
	}
	ends := k.ends
	if ends == 0 {
		ends = writv1.PromotionState_PROMOTION_STATE_DONE
	}
	p := l.reaches(id, ends)
	l.judge(k, group, p)
	if err := l.nodes.Restart(killed); err != nil {
		l.Fatal(err)
	}
	settle(l.T, l.nodes)
}

// killCoordinator kills the node that decides and waits until another one does.
func (l *killLab) killCoordinator() (killed int) {
	l.Helper()
	found := false
	eventually(l.T, "a coordinator", func(ctx context.Context) error {
		if killed, found = l.nodes.Coordinator(ctx); !found {
			return errors.New("nobody knows of one")
		}
		return nil
	})
	if err := l.nodes.Kill(killed); err != nil {
		l.Fatal(err)
	}
	began := time.Now()
	next := 0
	eventually(l.T, "another coordinator", func(ctx context.Context) error {
		if next, found = l.nodes.Coordinator(ctx); !found || next == killed {
			return errors.New("nobody knows of one")
		}
		return nil
	})
	l.Logf("%s was killed, and %s decides after %v", cluster.Regions[killed], cluster.Regions[next], time.Since(began).Round(time.Millisecond))
	return killed
}

// judge holds a promotion that has ended against what it has done.
func (l *killLab) judge(k killing, before *writv1.Group, p *writv1.Promotion) {
	l.Helper()
	// Nothing waits for some hooks, and they have to be over before they are counted.
	eventually(l.T, "the hooks end", func(context.Context) error {
		p = ask(l, writv1.RegionServiceClient.GetPromotion, &writv1.GetPromotionRequest{Id: p.GetId()})
		for _, run := range p.GetHooks() {
			if run.GetOutcome() == writv1.HookOutcome_HOOK_OUTCOME_PENDING {
				return fmt.Errorf("%v", run)
			}
		}
		return nil
	})
	ledger := l.ledger(p.GetId())
	for _, run := range p.GetHooks() {
		line := ledgerLine(p.GetId(), run)
		count := ledger[line]
		delete(ledger, line)
		if count > 1 || run.GetOutcome() == writv1.HookOutcome_HOOK_OUTCOME_DONE && count != 1 {
			l.Errorf("%q ran %d times: %v", line, count, run)
		}
	}
	if len(ledger) != 0 {
		l.Errorf("hooks ran that nobody asked for: %v", ledger)
	}
	for _, hook := range k.ran {
		kind := writv1.HookKind(writv1.HookKind_value["HOOK_KIND_"+strings.ToUpper(hook)])
		runs := 0
		for _, run := range p.GetHooks() {
			if run.GetKind() == kind {
				runs++
			}
		}
		if runs != 1 {
			l.Errorf("%s was asked for %d times: %v", hook, runs, p.GetHooks())
		}
	}
	group := ask(l, writv1.RegionServiceClient.GetGroup, &writv1.GetGroupRequest{Name: l.group})
	primary, moved := "us", true
	switch p.GetState() {
	case writv1.PromotionState_PROMOTION_STATE_CANCELLED:
		primary, moved = "eu", false
	case writv1.PromotionState_PROMOTION_STATE_ROLLED_BACK:
		primary = "eu"
	default:
	}
	if group.GetPrimary() != primary || moved != (group.GetToken() > before.GetToken()) || group.GetState() != writv1.GroupState_GROUP_STATE_STEADY || len(group.GetQuarantined()) != 0 {
		l.Errorf("after %v, the group is %s", p.GetState(), protojson.Format(group))
	}
}

// plan plans the promotion of a killing. A failover may lose nothing unless it is to be degraded.
func (l *killLab) plan(k killing) (id string) {
	l.Helper()
	request := &writv1.PlanRequest{Group: l.group, To: "us", Mode: k.mode, Reason: "test", RequestId: k.name(), ValidFor: durationpb.New(time.Hour)}
	if k.mode == 0 {
		request.Mode = switchingOver
	}
	if k.mode == failingOver {
		request.LossCap = &writv1.Loss{}
		if k.behind > 0 {
			request.LossCap.Bytes = new(uint64)
		}
	}
	return ask(l, writv1.RegionServiceClient.Plan, request).GetId()
}

func (l *killLab) execute(id string) {
	l.Helper()
	ask(l, writv1.RegionServiceClient.Execute, &writv1.ExecuteRequest{Id: id})
}

// settle has people say what became of the tail.
func (l *killLab) settle(id string) {
	l.Helper()
	l.reaches(id, writv1.PromotionState_PROMOTION_STATE_DEGRADED)
	op := ask(l, writv1.RegionServiceClient.Reinstate, &writv1.ReinstateRequest{Id: id, Disposition: writv1.Disposition_DISPOSITION_ACCEPTED, Reason: "test"})
	l.agree(op.GetId())
}

// agree has an operation signed and executed.
func (l *killLab) agree(id string) {
	l.Helper()
	l.sign(id)
	ask(l, writv1.RegionServiceClient.ExecuteOperation, &writv1.ExecuteOperationRequest{Id: id})
}

func (l *killLab) openOperation(kind writv1.OperationKind) string {
	l.Helper()
	for _, op := range ask(l, writv1.RegionServiceClient.ListOperations, &writv1.ListOperationsRequest{Group: l.group, Open: true}).GetOperations() {
		if op.GetKind() == kind {
			return op.GetId()
		}
	}
	l.Fatalf("there is no %v", kind)
	return ""
}

func (l *killLab) awaitStuck(id string) {
	l.Helper()
	eventually(l.T, id+" is stuck", func(context.Context) error {
		if p := ask(l, writv1.RegionServiceClient.GetPromotion, &writv1.GetPromotionRequest{Id: id}); !p.GetStuck() {
			return fmt.Errorf("it is %v", p.GetState())
		}
		return nil
	})
}

// resume goes on, once what stood in the way is known to be gone.
func (l *killLab) resume(id string) {
	l.Helper()
	eventually(l.T, id+" goes on", func(context.Context) error {
		ask(l, writv1.RegionServiceClient.Resume, &writv1.ResumeRequest{Id: id, Reason: "test"})
		if p := ask(l, writv1.RegionServiceClient.GetPromotion, &writv1.GetPromotionRequest{Id: id}); p.GetState() == writv1.PromotionState_PROMOTION_STATE_PREFLIGHT {
			return errors.New(p.GetReason())
		}
		return nil
	})
}

func (l *killLab) reaches(id string, state writv1.PromotionState) (p *writv1.Promotion) {
	l.Helper()
	eventually(l.T, fmt.Sprintf("%s becomes %v", id, state), func(context.Context) error {
		p = ask(l, writv1.RegionServiceClient.GetPromotion, &writv1.GetPromotionRequest{Id: id})
		if p.GetState() != state {
			return fmt.Errorf("it is %s", protojson.Format(p))
		}
		return nil
	})
	return p
}

// ledger counts the runs of a promotion's hooks, as the hooks themselves have written them down.
func (l *killLab) ledger(id string) map[string]int {
	l.Helper()
	data, err := os.ReadFile(l.path("ledger"))
	if err != nil {
		l.Fatal(err)
	}
	counts := make(map[string]int)
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, id+" ") {
			counts[line]++
		}
	}
	return counts
}

func ledgerLine(id string, run *writv1.HookRun) string {
	kind := strings.ToLower(strings.TrimPrefix(run.GetKind().String(), "HOOK_KIND_"))
	return fmt.Sprintf("%s %d %s %s", id, run.GetStep(), kind, run.GetRegion())
}

// awaitRun waits until a hook has begun.
func (l *killLab) awaitRun(id, hook string) {
	l.Helper()
	eventually(l.T, hook+" of "+id+" begins", func(context.Context) error {
		for line := range l.ledger(id) {
			if strings.Contains(line, " "+hook+" ") {
				return nil
			}
		}
		return errors.New("it has not")
	})
}

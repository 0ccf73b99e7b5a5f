//go:build linux

package jepsen_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/region/approval"
)

// TestPromotionOfPostgreSQL fails a real pair of servers over, from a region that is cut off and comes back, and back again,
// while writers write through guards.
//
// No acknowledged row is lost but those that the recorded tail lists, however many files of the log and checkpoints lie between,
// and none of those is left in the server that comes back. A guard that is cut off takes nothing in the last W before it is given
// up, nor later; a server that is promoted takes nothing under the old token, from the moment it can write; one that comes back
// takes nothing in any session. What is drained ends before the position that the drain tells. Nothing is executed, and no loss
// accepted, with fewer than two signatures.
func TestPromotionOfPostgreSQL(t *testing.T) {
	l := startPromotionLab(t)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	client := l.writer(ctx, &running, "client", clientParty, false, 1, 2, 0)
	l.awaitOrders(client, "eu", 20)

	t.Run("RegionCut", func(t *testing.T) { l.on(t).failover(ctx, client, false) })
	if t.Failed() {
		return
	}
	t.Run("ReplicaBehind", func(t *testing.T) { l.on(t).failover(ctx, client, true) })
	if t.Failed() {
		return
	}
	cancel()
	running.Wait()
	acknowledged, _, _ := client.tally("eu")
	elsewhere, _, _ := client.tally("us")
	t.Logf("%d orders were acknowledged to the client in eu, %d in us", acknowledged, elsewhere)
}

// on is the lab as a part of the test sees it.
func (l *promotionLab) on(t *testing.T) *promotionLab {
	part := *l
	part.T = t
	part.databases = make(map[string]*database)
	for region, d := range l.databases {
		copied := *d
		copied.T = t
		part.databases[region] = &copied
	}
	return &part
}

// writer begins to write orders from a party.
func (l *promotionLab) writer(ctx context.Context, running *sync.WaitGroup, name, party string, zombie bool, nodes ...int) *orderWriter {
	l.Helper()
	w := newOrderWriter(name, zombie, l.book, l.fronts, l.dial(party, "writer", nodes...), l.net.Dial(party))
	running.Go(func() { w.run(ctx) })
	return w
}

// awaitOrders waits until a writer has so many more rows acknowledged in a region.
func (l *promotionLab) awaitOrders(w *orderWriter, region string, more int) {
	l.Helper()
	before, _, _ := w.tally(region)
	eventually(l.T, fmt.Sprintf("%s writes in %s", w.name, region), func(context.Context) error {
		if now, _, last := w.tally(region); now < before+more {
			return fmt.Errorf("%d orders after %d; the last problem was: %s", now, before, last)
		}
		return nil
	})
}

// awaitRefusal waits until a guard or the storage has refused a writer some more.
func (l *promotionLab) awaitRefusal(w *orderWriter) string {
	l.Helper()
	_, before, _ := w.tally("")
	var last string
	eventually(l.T, w.name+" is refused", func(context.Context) error {
		var now int
		if _, now, last = w.tally(""); now < before+3 {
			return fmt.Errorf("%d refusals after %d: %s", now, before, last)
		}
		return nil
	})
	return last
}

// failover loses eu and gets it back. behind: replication breaks a moment before.
func (l *promotionLab) failover(ctx context.Context, client *orderWriter, behind bool) {
	l.Helper()
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	name := map[bool]string{false: "zombie1", true: "zombie2"}[behind]
	zombie := l.writer(ctx, &running, name, "eu", true, 0)
	l.awaitOrders(zombie, "eu", 10)
	eu, us := l.databases["eu"], l.databases["us"]
	group, err := l.group(l.Context())
	if err != nil || group.GetPrimary() != "eu" {
		l.Fatalf("%v, %v", group, err)
	}
	old := group.GetToken()
	direct := l.directSession(eu)
	if _, err := direct.Exec(l.Context(), "set default_transaction_read_only = off"); err != nil { // it means no good
		l.Fatal(err)
	}
	l.awaitConfidence("us")

	limit := "16MiB"
	if behind {
		us.exec("alter system set primary_conninfo = ''", "select pg_reload_conf()")
		us.await("select count(*)::text from pg_stat_wal_receiver", "0")
		l.awaitOrders(client, "eu", 15) // which us will never have
		limit = "1B,1ms"
	}
	l.net.Unplug("eu")
	cut := time.Now()
	l.Log("eu is cut off")
	// Somebody goes around the guard: this is what a fence in the database of a region that cannot be reached does not stop.
	l.writeThroughFiles(direct, eu, old, name)
	sneak := l.sneak(ctx, &running, us, old, name)

	id := l.plan("--to", "us", "--mode", "failover", "--loss-cap", limit, "--reason", "eu does not answer")
	l.approve(id)
	l.must("promote", "execute", id, "--wait=false")
	// What is not known is above every cap, so that a busy machine may want these signatures in either case.
	asks, computed := l.asksForTail(id)
	if asks {
		l.acceptTail(id)
	} else if behind {
		l.Error("a loss above the cap needed no signatures")
	}
	l.must("promote", "execute", id)
	p := l.reaches(id, writv1.PromotionState_PROMOTION_STATE_DEGRADED)
	l.judgePromotion(p, cut, old)
	if !computed.IsZero() {
		l.Logf("fenced %v after the end of the wait that was computed", p.GetTimeline().GetFenced().AsTime().Sub(computed).Round(time.Millisecond))
	}
	l.awaitOrders(client, "us", 20)
	sneak.judge(l)
	l.Logf("the zombie is told: %s", l.awaitRefusal(zombie))

	l.net.Plug("eu")
	l.Log("eu is back")
	l.awaitDemoted(id)
	l.Logf("the zombie is told: %s", l.awaitRefusal(zombie))
	if err := l.writeDirectly(direct, old, name+"-direct-after"); err == nil {
		l.Error("a session of before writes with the old token in eu, which was demoted")
	} else {
		l.Logf("its session of before: %v", err)
	}
	for region, d := range map[string]*database{"eu": eu, "us": us} {
		err := l.writeDirectly(l.directSession(d), old, name+"-direct-"+region)
		if err == nil {
			l.Errorf("a session with the old token writes in %s", region)
		}
		if region == "us" && !errors.Is(err, fence.ErrStale) {
			l.Errorf("a session with the old token in us: %v, want it to be stale", err)
		}
		l.Logf("a new session with the old token in %s: %v", region, err)
	}
	p = l.settle(id)
	lost := l.judgeTail(p, old)
	l.noLateOrders(p, cut, old)
	l.noneLeft(eu, lost)
	us.await("select count(*)::text from pg_stat_replication where state = 'streaming'", "1")
	l.awaitRefusal(zombie)
	maps.Copy(l.gone, lost)
	l.failBack(client)
	l.refusesDirectly(eu, old, name+"-direct-back", true)
	eventually(l.T, "the zombie is told that it is stale", func(context.Context) error {
		if last := l.awaitRefusal(zombie); !strings.Contains(last, "STALE_TOKEN") {
			return errors.New(last)
		}
		return nil
	})
	l.noLateOrders(p, cut, old)
}

// plan plans a promotion and answers its id.
func (l *promotionLab) plan(args ...string) (id string) {
	l.Helper()
	l.must(append([]string{"promote", "plan", ordersGroup, "-o", l.path("plan.json")}, args...)...)
	raw, err := os.ReadFile(l.path("plan.json"))
	if err != nil {
		l.Fatal(err)
	}
	doc, err := approval.ParseDocument(raw)
	if err != nil {
		l.Fatal(err)
	}
	return doc.ID
}

// asksForTail waits until a promotion has gone on after the fencing, or says that it waits for people to accept the loss. computed
// is when the wait for the guard of eu is over, as the promotion tells.
func (l *promotionLab) asksForTail(id string) (asks bool, computed time.Time) {
	l.Helper()
	eventually(l.T, id+" is fenced", func(ctx context.Context) error {
		asked := time.Now()
		p, err := l.promotion(ctx, id)
		if err != nil {
			return err
		}
		switch p.GetState() {
		case writv1.PromotionState_PROMOTION_STATE_FENCING:
			for _, w := range p.GetWaits() {
				if over := asked.Add(w.GetLeft().AsDuration()); w.GetLeft() != nil && strings.Contains(w.GetWhat(), "g-eu") {
					computed = over
				}
			}
		case writv1.PromotionState_PROMOTION_STATE_GRANTED, writv1.PromotionState_PROMOTION_STATE_VERIFYING, writv1.PromotionState_PROMOTION_STATE_DEGRADED:
			return nil
		case writv1.PromotionState_PROMOTION_STATE_TAIL:
			asks = slices.ContainsFunc(p.GetWaits(), func(w *writv1.Wait) bool { return strings.Contains(w.GetWhat(), "the loss to be accepted") })
			if asks {
				return nil
			}
		default:
		}
		return fmt.Errorf("it is %v: %s", p.GetState(), p.GetReason())
	})
	return asks, computed
}

// acceptTail has both people accept a loss above the cap, before which nothing is granted.
func (l *promotionLab) acceptTail(id string) {
	l.Helper()
	l.reaches(id, writv1.PromotionState_PROMOTION_STATE_TAIL)
	group, err := l.group(l.Context())
	if err != nil || group.GetPrimary() != "" {
		l.Errorf("the loss was accepted by nobody, and %q is primary: %v", group.GetPrimary(), err)
	}
	var listed struct{ Operations []struct{ ID, Kind string } }
	out := l.must("promote", "operations", ordersGroup, "--open", "--output", "json")
	if err := json.Unmarshal([]byte(out), &listed); err != nil {
		l.Fatalf("%v: %s", err, out)
	}
	at := slices.IndexFunc(listed.Operations, func(op struct{ ID, Kind string }) bool { return strings.HasSuffix(op.Kind, "TAIL") })
	if at < 0 {
		l.Fatalf("there is nothing to sign: %s", out)
	}
	if _, err := l.typed("promote", "execute", listed.Operations[at].ID); err == nil {
		l.Error("the loss was accepted without signatures")
	}
	l.approve(listed.Operations[at].ID)
	l.must("promote", "execute", listed.Operations[at].ID)
}

func (l *promotionLab) awaitDemoted(id string) {
	l.Helper()
	eventually(l.T, "eu is demoted", func(ctx context.Context) error {
		p, err := l.promotion(ctx, id)
		if err != nil {
			return err
		}
		for _, run := range p.GetHooks() {
			if run.GetKind() == writv1.HookKind_HOOK_KIND_DEMOTE && run.GetOutcome() == writv1.HookOutcome_HOOK_OUTCOME_DONE {
				return nil
			}
		}
		return fmt.Errorf("hooks: %v", p.GetHooks())
	})
}

// settle has both people say what became of the tail, and waits until eu follows us.
func (l *promotionLab) settle(id string) *writv1.Promotion {
	l.Helper()
	var op struct{ ID string }
	out := l.must("promote", "reinstate", id, "--disposition", "accepted", "--reason", "the customers were called", "--output", "json")
	if err := json.Unmarshal([]byte(out), &op); err != nil || op.ID == "" {
		l.Fatalf("%v: %s", err, out)
	}
	l.approve(op.ID)
	l.must("promote", "execute", op.ID)
	p := l.reaches(id, writv1.PromotionState_PROMOTION_STATE_DONE)
	l.must("promote", "get", id)
	return p
}

// awaitConfidence waits until a promotion would work, as far as the quorum knows: agents look once in a second.
func (l *promotionLab) awaitConfidence(to string) {
	l.Helper()
	eventually(l.T, "a promotion to "+to+" would work", func(ctx context.Context) error {
		said, err := writv1.NewRegionServiceClient(l.admin[0]).Confidence(ctx, &writv1.ConfidenceRequest{Group: ordersGroup, To: to})
		if err == nil && !said.GetGo() {
			bad := slices.DeleteFunc(said.GetLines(), func(line *writv1.ConfidenceLine) bool { return line.GetOk() || line.GetWarning() })
			err = fmt.Errorf("%v", bad)
		}
		return err
	})
}

// failBack goes back to eu, losing nothing.
func (l *promotionLab) failBack(client *orderWriter) {
	l.Helper()
	l.awaitConfidence("eu")
	id := l.plan("--mode", "failback", "--reason", "eu is well again")
	l.approve(id)
	l.must("promote", "execute", id)
	p := l.reaches(id, writv1.PromotionState_PROMOTION_STATE_DONE)
	l.Logf("failback: time to healthy %v", p.GetTimeline().GetTimeToHealthy().AsDuration())
	if len(p.GetTails()) != 0 || p.GetTo() != "eu" {
		l.Errorf("it is %v", p)
	}
	l.judgeDrain(p)
	l.awaitOrders(client, "eu", 10)
	us := l.databases["us"]
	us.await("select count(*)::text from pg_stat_wal_receiver where status = 'streaming'", "1")
	// What has been acknowledged so far is there, but for what was lost.
	all := l.book.all()
	there := l.databases["eu"].ids()
	for id := range all {
		if !there[id] && !l.gone[id] {
			l.Errorf("%s was acknowledged and is lost", id)
		}
	}
}

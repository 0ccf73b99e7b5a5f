package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/cmd/writ/cli/proctree/proctest"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard"
)

// guardOf starts a guard that covers resources, before the storage of a region.
func (l *live) guardOf(name, region string, covers ...string) *guard.Guard {
	l.Helper()
	g, err := guard.New(guard.Config{
		Name: name, Region: region, Form: "test", Covers: covers, Store: filepath.Join(l.TempDir(), "floors"), Slack: 50 * time.Millisecond,
		Endpoints: strings.Split(os.Getenv("WRIT_ENDPOINTS"), ","), CAFile: os.Getenv("WRIT_CA"), CertFile: os.Getenv("WRIT_CERT"), KeyFile: os.Getenv("WRIT_KEY"),
	})
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), proctest.Patience)
		defer cancel()
		_ = g.Close(ctx)
	})
	return g
}

// A drill before a real quorum and real guards: it is refused where a guard knows nothing of it, it passes, it is reported, and the
// group itself is what it was.
func TestDrillForReal(t *testing.T) {
	l := goLive(t)
	t.Chdir(t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	var agents sync.WaitGroup
	defer agents.Wait()
	defer cancel()
	groups := fmt.Sprintf(`name: orders
regions:
  - {name: eu, role: primary, priority: 10, agent: %[1]q, guards: [g-eu], writers: [%[1]q]}
  - {name: us, role: standby, priority: 5, agent: %[1]q, guards: [g-us]}
rpo: {time: 5s}
hooks: [{kind: drain}, {kind: promote}, {kind: shift}, {kind: verify}, {kind: undrain, optional: true}]
`, l.principal)
	if err := os.WriteFile("orders.yaml", []byte(groups), 0o600); err != nil {
		t.Fatal(err)
	}
	l.must(0, "applied", "group", "apply", "-f", "orders.yaml")
	eu, us := l.guardOf("g-eu", "eu", "orders", "drill/*"), l.guardOf("g-us", "us", "orders")
	steady := func(g *writv1.Group) bool {
		heard := 0
		for _, r := range g.GetRegions() {
			if r.GetHealth() == writv1.Health_HEALTH_OK && len(r.GetGuards()) == 1 {
				heard++
			}
		}
		return g.GetState() == writv1.GroupState_GROUP_STATE_STEADY && heard == 2
	}
	l.until("there is a primary", func(g *writv1.Group) bool {
		return g.GetState() == writv1.GroupState_GROUP_STATE_STEADY && len(g.GetRegions()[0].GetGuards())+len(g.GetRegions()[1].GetGuards()) == 2
	})

	// A guard that knows nothing of the drill's resource is told before anything happens.
	l.must(2, "guards do not cover drill/orders: g-us", "drill", "run", "orders", "--to", "us")
	shut, done := context.WithTimeout(ctx, proctest.Patience)
	defer done()
	if err := us.Close(shut); err != nil {
		t.Fatal(err)
	}
	us = l.guardOf("g-us", "us", "orders", "drill/*")
	l.agent(ctx, "eu", eu, &agents)
	l.agent(ctx, "us", us, &agents)
	before := l.until("g-us is back, and both agents are heard", steady)

	r := l.must(0, "passed", "drill", "run", "orders", "--to", "us", "--slo", "5m")
	if !strings.Contains(r.stderr, "orders-drill-1.1: ") || strings.Contains(r.stderr, "approve") {
		t.Errorf("it was told of %s", r.stderr)
	}
	l.must(0, "passed", "drill", "run", "orders", "--to", "us", "--mode", "failover", "--keep")
	l.must(0, "us", "group", "status", "orders-drill")
	l.must(2, "too long", "drill", "run", "orders", "--to", "us", "--slo", "1ns")

	// The group is what it was, and writes go on under its token.
	after := l.until("the group is steady", steady)
	if after.GetToken() != before.GetToken() || after.GetPrimary() != "eu" || after.GetVersion() != before.GetVersion() {
		t.Errorf("the group was %v, and is %v", before, after)
	}
	for name, g := range map[string]*guard.Guard{"g-eu": eu, "g-us": us} {
		admission, err := g.Admit(t.Context(), fence.Write{Resource: "orders", Token: fence.Token(before.GetToken())})
		if err != nil {
			t.Errorf("%s with the token of the group: %v", name, err)
			continue
		}
		admission.Done(fence.Finished)
	}
	l.must(0, "the last one was on", "confidence", "orders", "--to", "us")

	l.must(0, "P99", "drill", "report")
	l.must(2, "TOO LONG", "drill", "report", "orders", "--slo", "1ns")
	var report struct {
		Groups []struct {
			Group          string
			Passed, Failed int
			P50, P99       string
			Drills         []struct{ Outcome string }
		}
	}
	r = l.must(0, "orders", "drill", "report", "orders", "-o", "json")
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
		t.Fatal(err)
	}
	if g := report.Groups[0]; g.Passed != 3 || g.Failed != 0 || g.P50 == "" || g.P99 == "" || len(g.Drills) != 3 || g.Drills[0].Outcome != "DRILL_OUTCOME_PASSED" {
		t.Errorf("the report is %s", r.stdout)
	}
	for _, what := range []string{"drill.run", "drill.pass"} {
		l.must(0, what, "audit", "list", "--limit", "1000")
	}
	if file := os.Getenv("WRIT_TRANSCRIPT"); file != "" {
		if err := os.WriteFile(file, []byte(l.page.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

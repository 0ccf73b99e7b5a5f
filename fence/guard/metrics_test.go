package guard_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard"
)

func TestMetrics(t *testing.T) {
	simulate(t, func(r *rig) {
		registry := prometheus.NewPedanticRegistry()
		r.config.Registerer = registry
		r.ready()
		for _, token := range []uint64{5, 6, 7} {
			r.admit("orders", tok(token)).Done(fence.Finished)
		}
		r.refuse(fence.Write{Resource: "orders", Token: tok(6)}, fence.ErrStale)
		r.refuse(fence.Write{Resource: "orders", Token: -1}, fence.ErrInvalidToken)
		r.refuse(fence.Write{Resource: "nowhere", Token: tok(6)}, fence.ErrUnguarded)
		under := r.admit("billing/eu", tok(5))
		r.quorum.raise("billing/eu", tok(8))
		r.pass(3 * time.Second)
		under.Done(fence.Finished)
		r.quorum.raise("orders", tok(2))
		r.wantAck("orders", tok(7), acked)
		r.pass(time.Second) // for the question whether that holds
		r.admit("billing/eu", tok(8))
		r.network.stopAll()
		r.pass(10 * time.Second)
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		plainly := map[string]float64{
			"writ_guard_admitted_total": 5, "writ_guard_alarms_total": 1, "writ_guard_connected": 0, "writ_guard_in_flight": 1,
			"writ_guard_seeded": 1, "writ_guard_parked": 0, "writ_guard_store_failing": 0, "writ_guard_floors": 2,
		}
		for _, f := range families {
			if want, plain := plainly[f.GetName()]; plain {
				m := f.GetMetric()[0]
				if got := m.GetGauge().GetValue() + m.GetCounter().GetValue(); got != want {
					t.Errorf("%s is %v, want %v", f.GetName(), got, want)
				}
				seen++
			}
			switch f.GetName() {
			case "writ_guard_refused_total":
				for _, m := range f.GetMetric() {
					reason := m.GetLabel()[0].GetValue()
					expected := 0.0
					if reason == "STALE_TOKEN" || reason == "INVALID_TOKEN" || reason == "NO_ROUTE" {
						expected = 1
					}
					if got := m.GetCounter().GetValue(); got != expected {
						t.Errorf("%s refused %v, want %v", reason, got, expected)
					}
				}
				seen++
			case "writ_guard_lease_left_seconds":
				if left := f.GetMetric()[0].GetGauge().GetValue(); left < 10 || left > 21 {
					t.Errorf("lease left %v", left)
				}
				seen++
			case "writ_guard_raise_seconds":
				if h := f.GetMetric()[0].GetHistogram(); h.GetSampleCount() < 1 || h.GetSampleSum() < 3 || h.GetSampleSum() > 4 {
					t.Errorf("raises %v", h)
				}
				seen++
			case "writ_guard_persist_seconds":
				if h := f.GetMetric()[0].GetHistogram(); h.GetSampleCount() < 3 {
					t.Errorf("persisted %v", h)
				}
				seen++
			}
		}
		if seen != 4+len(plainly) {
			t.Errorf("%d of %d metrics", seen, 4+len(plainly))
		}
		if _, err := guard.New(func() guard.Config { c := r.config; c.Store += "2"; return c }()); !errors.Is(err, guard.ErrConfig) {
			t.Errorf("a second guard in one registry: %v", err)
		}
		if log := r.log.String(); !strings.Contains(log, "made up on a trusted route") || strings.Count(log, "trying the next one") > 3 {
			t.Errorf("the alarm is not in the log:\n%s", log)
		}
	})
}

package guard

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/writ-io/writ/fence"
)

// reasons are the labels of refusals: what a front answers, or the obstacle of one that is unavailable.
var reasons = [...]string{
	fence.ReasonStaleToken, fence.ReasonUnknownKey, fence.ReasonInvalidWrit, fence.ReasonInvalidToken, fence.ReasonNoRoute,
	string(fence.NotSeeded), string(fence.Isolated), string(fence.Draining), string(fence.StoreFailed),
	string(fence.Overloaded), string(fence.Stopping), "ABANDONED", fence.ReasonInternal,
}

// metrics is what a guard counts. Reading it asks the gate; counting costs one addition.
type metrics struct {
	guard    *Guard
	admitted atomic.Uint64
	refusals [len(reasons)]atomic.Uint64
	probes   [2]atomic.Uint64 // admitted, refused
	raise    prometheus.Histogram
	persist  prometheus.Histogram
}

var (
	descAdmitted  = describe("admitted_total", "Writes that were admitted.")
	descRefused   = describe("refused_total", "Writes that were refused, by reason.", "reason")
	descInFlight  = describe("in_flight", "Writes that are under way.")
	descParked    = describe("parked", "Writes that wait for their turn.")
	descFloors    = describe("floors", "Resources with a floor of their own.")
	descLease     = describe("lease_left_seconds", "How long the guard lease lasts without another contact; 0: it has run out.")
	descAlarms    = describe("alarms_total", "Tokens from the quorum that were below the guard's floor.")
	descConnected = describe("connected", "1 while the guard speaks with a node.")
	descGlass     = describe("breakglass", "Resources that are admitted without a quorum, by a certificate that people signed.")
	descSeeded    = describe("seeded", "1 if the quorum has told the floors since the process started.")
	descFailing   = describe("store_failing", "1 while floors cannot be written.")
	descProbes    = describe("probes_total", "Canaries of the quorum, by outcome.", "outcome")
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("writ_guard_"+name, help, labels, nil)
}

func newMetrics(g *Guard) *metrics {
	return &metrics{
		guard: g,
		raise: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "writ_guard_raise_seconds", Help: "From being told of a raise until its acknowledgement.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 18),
		}),
		persist: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "writ_guard_persist_seconds", Help: "How long it took to make floors durable.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 2, 16),
		}),
	}
}

// Collector answers the guard's metrics.
func (g *Guard) Collector() prometheus.Collector { return g.metrics }

// Describe implements [prometheus.Collector].
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descAdmitted, descRefused, descInFlight, descParked, descFloors, descLease, descAlarms, descConnected, descSeeded,
		descFailing, descProbes, descGlass,
	} {
		to <- d
	}
	m.raise.Describe(to)
	m.persist.Describe(to)
}

// Collect implements [prometheus.Collector].
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	s := m.guard.Status()
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v)
	}
	count(descAdmitted, m.admitted.Load())
	for i, reason := range reasons {
		count(descRefused, m.refusals[i].Load(), reason)
	}
	count(descProbes, m.probes[0].Load(), "admitted")
	count(descProbes, m.probes[1].Load(), "refused")
	count(descAlarms, s.AlarmCount)
	gauge(descInFlight, float64(s.InFlight))
	gauge(descParked, float64(s.Parked))
	gauge(descFloors, float64(s.Floors))
	gauge(descLease, max(0, s.LeaseLeft).Seconds())
	gauge(descConnected, oneIf(s.Connected))
	inForce := 0
	for _, o := range s.Openings {
		if o.Closed == "" {
			inForce++
		}
	}
	gauge(descGlass, float64(inForce))
	gauge(descSeeded, oneIf(s.Seeded))
	gauge(descFailing, oneIf(s.StoreFailed))
	m.raise.Collect(to)
	m.persist.Collect(to)
}

func (m *metrics) refuse(err error) { m.refusals[reasonIndex(err)].Add(1) }

func (m *metrics) probed(refused bool) { m.probes[int(oneIf(refused))].Add(1) }

// reasonIndex is where a refusal is counted.
func reasonIndex(err error) int {
	reason := fence.ReasonInternal
	var unavailable *fence.UnavailableError
	switch {
	case errors.Is(err, fence.ErrStale):
		reason = fence.ReasonStaleToken
	case errors.As(err, &unavailable):
		reason = string(unavailable.Obstacle)
	case errors.Is(err, fence.ErrUnknownKey):
		reason = fence.ReasonUnknownKey
	case errors.Is(err, fence.ErrInvalidWrit):
		reason = fence.ReasonInvalidWrit
	case errors.Is(err, fence.ErrInvalidToken):
		reason = fence.ReasonInvalidToken
	case errors.Is(err, fence.ErrUnguarded):
		reason = fence.ReasonNoRoute
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		reason = "ABANDONED"
	}
	for i, r := range reasons {
		if r == reason {
			return i
		}
	}
	return len(reasons) - 1
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

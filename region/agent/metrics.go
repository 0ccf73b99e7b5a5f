package agent

import (
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// metrics is what an agent counts.
type metrics struct {
	agent *Agent
	polls *prometheus.CounterVec

	mu        sync.Mutex
	connected bool // guarded by mu
}

var (
	descConnected = prometheus.NewDesc("writ_agent_connected", "1 while the quorum answers.", nil, nil)
	descHealth    = prometheus.NewDesc("writ_agent_health", "What is reported of a group: 0 unknown, 1 ok, 2 degraded, 3 failed.", []string{"group"}, nil)
	descLag       = prometheus.NewDesc("writ_agent_lag_seconds", "How far a group's data is behind its upstream; absent: not known.", []string{"group"}, nil)
)

func newMetrics(a *Agent) *metrics {
	return &metrics{agent: a, polls: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "writ_agent_polls_total", Help: "Polls of the quorum, by outcome.",
	}, []string{"outcome"})}
}

// Collector answers the agent's metrics.
func (a *Agent) Collector() prometheus.Collector { return a.metrics }

func (m *metrics) polled(err error) {
	outcome := "ok"
	if err != nil {
		outcome = "failed"
	}
	m.polls.WithLabelValues(outcome).Inc()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.connected = err == nil
}

// Describe implements [prometheus.Collector].
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	to <- descConnected
	to <- descHealth
	to <- descLag
	m.polls.Describe(to)
}

// Collect implements [prometheus.Collector].
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	m.mu.Lock()
	connected := 0.0
	if m.connected {
		connected = 1
	}
	m.mu.Unlock()
	to <- prometheus.MustNewConstMetric(descConnected, prometheus.GaugeValue, connected)
	for _, r := range m.agent.reports() {
		to <- prometheus.MustNewConstMetric(descHealth, prometheus.GaugeValue, float64(r.GetHealth()), r.GetGroup())
		if r.GetLag() != nil {
			to <- prometheus.MustNewConstMetric(descLag, prometheus.GaugeValue, r.GetLag().AsDuration().Seconds(), r.GetGroup())
		}
	}
	m.polls.Collect(to)
}

func healthName(h writv1.Health) string {
	return strings.ToLower(strings.TrimPrefix(h.String(), "HEALTH_"))
}

func outcomeName(o writv1.HookOutcome) string {
	return strings.ToLower(strings.TrimPrefix(o.String(), "HOOK_OUTCOME_"))
}

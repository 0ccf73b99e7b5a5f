package proxy

import "github.com/prometheus/client_golang/prometheus"

// outcome is what becomes of most requests; for the others there are the reasons of refusals.
type outcome int

const (
	outcomePassed outcome = iota
	outcomeFinished
	outcomeBroken
	outcomeNotSent
	outcomes
)

var outcomeNames = [outcomes]string{"passed", "finished", "broken", "not_sent"}

// counters are those of one route.
type counters [outcomes]prometheus.Counter

// metrics count requests. Without a registerer they count all the same.
type metrics struct{ requests *prometheus.CounterVec }

func newMetrics(p *Proxy, registerer prometheus.Registerer) (*metrics, error) {
	m := &metrics{requests: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "writ_guard_http_requests_total",
		Help: "Requests by route and outcome: passed (not checked), finished, broken (may still be carried out), not_sent, or the reason of a refusal.",
	}, []string{"route", "outcome"})}
	if registerer == nil {
		return m, nil
	}
	underWay := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "writ_guard_http_under_way",
		Help: "Requests under way, including those whose caller has gone.",
	}, func() float64 { return float64(p.underWay()) })
	for _, c := range []prometheus.Collector{m.requests, underWay} {
		if err := registerer.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// counters returns those of a route.
func (m *metrics) counters(route string) *counters {
	c := &counters{}
	for i, name := range outcomeNames {
		c[i] = m.requests.WithLabelValues(route, name)
	}
	return c
}

// refused counts a refusal.
func (m *metrics) refused(route, reason string) { m.requests.WithLabelValues(route, reason).Inc() }

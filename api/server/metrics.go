package server

import (
	"fmt"
	"path"
	"time"

	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/quorum"
)

// metrics of this package. Counters of the hot path are looked up once, here.
type metrics struct {
	grpc *grpcprom.ServerMetrics

	refusedRate       prometheus.Counter
	refusedConcurrent prometheus.Counter
	refusedPolicy     prometheus.Counter

	forwarded      prometheus.Counter
	forwardRetries prometheus.Counter
	forwardGivenUp prometheus.Counter

	calls        *prometheus.CounterVec
	callSeconds  *prometheus.HistogramVec
	plainCalls   map[string]prometheus.Counter  // of calls by method, for those that succeed
	plainSeconds map[string]prometheus.Observer // of callSeconds by method

	renewBatch prometheus.Histogram
	watches    prometheus.Gauge

	guardSessions prometheus.Gauge
	guardAlarms   prometheus.Gauge
	guardAsks     *prometheus.CounterVec
	guardNews     *prometheus.CounterVec
	guardProbes   *prometheus.CounterVec
}

var callBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

func newMetrics(registry *prometheus.Registry, cfg Config) (*metrics, error) {
	refused := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "writ_server_refused_total", Help: "Requests refused before they were looked into, by the limit that they met.",
	}, []string{"by"})
	forward := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "writ_server_forward_attempts_total",
		Help: "Attempts to have the coordinator decide, by outcome: answered, retried, given_up.",
	}, []string{"outcome"})
	m := &metrics{
		grpc: grpcprom.NewServerMetrics(grpcprom.WithServerHandlingTimeHistogram(grpcprom.WithHistogramBuckets(callBuckets))),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writ_server_pipelined_calls_total", Help: "Calls that came over a pipeline, by method and by code as those of grpc_server_handled_total.",
		}, []string{"grpc_method", "grpc_code"}),
		callSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "writ_server_pipelined_call_seconds", Help: "How long calls that came over a pipeline took.", Buckets: callBuckets,
		}, []string{"grpc_method"}),
		plainCalls: make(map[string]prometheus.Counter), plainSeconds: make(map[string]prometheus.Observer),
		refusedRate:       refused.WithLabelValues("rate"),
		refusedConcurrent: refused.WithLabelValues("concurrency"),
		refusedPolicy:     refused.WithLabelValues("policy"),
		forwarded:         forward.WithLabelValues("answered"),
		forwardRetries:    forward.WithLabelValues("retried"),
		forwardGivenUp:    forward.WithLabelValues("given_up"),
		renewBatch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "writ_server_renew_batch_leases", Help: "Leases in each renewal message to the coordinator.",
			Buckets: []float64{1, 3, 10, 30, 100, 300, 1000, 3000, 10000},
		}),
		watches: prometheus.NewGauge(prometheus.GaugeOpts{Name: "writ_server_watches", Help: "Watches under way."}),

		guardSessions: prometheus.NewGauge(prometheus.GaugeOpts{Name: "writ_server_guard_sessions", Help: "Guards that are connected to this node."}),
		guardAlarms: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "writ_server_guard_alarms",
			Help: "Alarms that the guards connected to this node report: tokens from the quorum that were below a floor.",
		}),
		guardAsks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writ_server_guard_asks_total", Help: "What guards have asked, by kind (enrol, contact, acks, leave) and by code.",
		}, []string{"ask", "grpc_code"}),
		guardNews: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writ_server_guard_news_total", Help: "What guards have been told unasked, by kind: raises, grants, keys, hurry.",
		}, []string{"kind"}),
		guardProbes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "writ_server_guard_probes_total", Help: "Canaries sent through guards, by outcome: refused, admitted, unanswered.",
		}, []string{"outcome"}),
	}
	for _, method := range []string{
		writv1.LeaseService_Acquire_FullMethodName, writv1.LeaseService_Release_FullMethodName, writv1.LeaseService_Checkpoint_FullMethodName,
	} {
		m.plainCalls[method] = m.calls.WithLabelValues(path.Base(method), codes.OK.String())
		m.plainSeconds[method] = m.callSeconds.WithLabelValues(path.Base(method))
	}
	collectors := []prometheus.Collector{m.grpc, refused, forward, m.calls, m.callSeconds, m.renewBatch, m.watches,
		m.guardSessions, m.guardAlarms, m.guardAsks, m.guardNews, m.guardProbes}
	if cfg.Identity != nil {
		collectors = append(collectors, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "writ_server_certificate_not_after_seconds",
			Help: "When the certificate in use expires, in seconds since 1970.",
		}, func() float64 { return float64(cfg.Identity.NotAfter().Unix()) }))
	}
	for _, c := range collectors {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("registering metrics: %w: give each server a registry of its own", err)
		}
	}
	return m, nil
}

// pipelined counts a call that came over a pipeline.
func (m *metrics) pipelined(method string, code codes.Code, took time.Duration) {
	if code == codes.OK {
		m.plainCalls[method].Inc()
	} else {
		m.calls.WithLabelValues(path.Base(method), code.String()).Inc()
	}
	m.plainSeconds[method].Observe(took.Seconds())
}

func (m *metrics) guardAsked(kind string, code codes.Code) {
	m.guardAsks.WithLabelValues(kind, code.String()).Inc()
}

// guardTold counts resources, key sets and hurries.
func (m *metrics) guardTold(news []*writv1.GuardResponse) {
	for _, n := range news {
		switch say := n.GetSay().(type) {
		case *writv1.GuardResponse_Raises:
			m.guardNews.WithLabelValues("raises").Add(float64(len(say.Raises.GetRaises())))
		case *writv1.GuardResponse_Grants:
			m.guardNews.WithLabelValues("grants").Add(float64(len(say.Grants.GetGrants())))
		case *writv1.GuardResponse_Jwks:
			m.guardNews.WithLabelValues("keys").Inc()
		case *writv1.GuardResponse_Hurry:
			m.guardNews.WithLabelValues("hurry").Inc()
		}
	}
}

// storeMetrics tells how full the store is, as this node has it.
func storeMetrics(q Quorum) []prometheus.Collector {
	gauge := func(name, help string, value func(quorum.Status) int64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value(q.Status())) })
	}
	return []prometheus.Collector{
		gauge("writ_server_store_bytes", "What is in use of the store, history included.",
			func(st quorum.Status) int64 { return st.DBBytes }),
		gauge("writ_server_store_soft_quota_bytes", "What may be in use after compaction before growth is refused; 0: no quota.",
			func(st quorum.Status) int64 { return st.QuotaBytes }),
		gauge("writ_server_store_over_quota", "1 while new resources and larger checkpoints are refused for want of space.",
			func(st quorum.Status) int64 {
				if st.OverQuota {
					return 1
				}
				return 0
			}),
	}
}

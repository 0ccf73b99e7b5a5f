package proxy_test

import (
	"context"
	"errors"
	"maps"
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard/proxy"
	"github.com/writ-io/writ/fence/guard/route"
)

func TestLimits(t *testing.T) {
	up := newEcho(t)
	w := newWorld(t, up.URL, func(c *proxy.Config) {
		c.Limits.MaxBodyBytes, c.Limits.MaxConcurrent, c.Limits.MaxHeaderBytes = 10, 2, 16<<10
	})
	for _, c := range []struct {
		request string
		status  int
		reason  string
		outcome fence.Outcome
	}{
		{put + "Content-Length: 10\n\n0123456789", 200, "", fence.Finished},
		{put + "Transfer-Encoding: chunked\n\nA\n0123456789\n0\n\n", 200, "", fence.Finished},
		{put + "Content-Length: 11\n\n0123456789a", 413, proxy.ReasonTooLarge, 0},
		{put + "Transfer-Encoding: chunked\n\nB\n0123456789a\n0\n\n", 413, proxy.ReasonTooLarge, fence.Broken},
		{put + "X: " + strings.Repeat("x", 32<<10) + "\n\n", 431, "", 0},
	} {
		caller := w.dial()
		caller.send("%s", c.request)
		resp, text := caller.answer()
		if resp.StatusCode != c.status || c.reason != "" && problem(t, text).Reason != c.reason {
			t.Errorf("%.60q: %d %s", c.request, resp.StatusCode, text)
		}
		if c.outcome != 0 {
			w.begun()
			if got := <-w.keeper.outcomes; got != c.outcome && c.outcome == fence.Finished {
				t.Errorf("%.60q: %s", c.request, name(got))
			}
		}
	}
	wait := make(chan struct{})
	w.keeper.hold(wait)
	before := len(w.keeper.asked())
	callers := []*client{w.dial(), w.dial(), w.dial()}
	for _, caller := range callers[:2] {
		caller.send("%s\n", put)
	}
	for len(w.keeper.asked()) < before+2 {
		runtime.Gosched()
	}
	callers[2].send("%s\n", put)
	resp, text := callers[2].answer()
	if p := problem(t, text); resp.StatusCode != 503 || p.Obstacle != string(fence.Overloaded) {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
	close(wait)
	for range 2 {
		w.ends(fence.Finished)
	}
}

// Close refuses what comes and waits for what is under way.
func TestClose(t *testing.T) {
	got, answer := make(chan struct{}), make(chan struct{})
	s := scripted(t, func(s *stage) {
		s.whole()
		close(got)
		<-answer
		s.say("HTTP/1.1 200 OK\nContent-Length: 0\n\n")
		_ = s.drained()
	})
	w := newWorld(t, s.url())
	caller := w.dial()
	caller.send("%s\n", put)
	<-got
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("no patience"))
	if err := w.proxy.Close(ended); err == nil || !strings.Contains(err.Error(), "no patience") {
		t.Fatal(err)
	}
	second := w.dial()
	second.send("GET /x HTTP/1.1\nHost: h\n\n")
	resp, text := second.answer()
	if p := problem(t, text); resp.StatusCode != 503 || p.Obstacle != string(fence.Stopping) {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
	close(answer)
	if err := w.proxy.Close(t.Context()); err != nil {
		t.Error(err)
	}
	w.ends(fence.Finished)
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	w := newWorld(t, newEcho(t).URL, func(c *proxy.Config) { c.Registerer = registry })
	caller := w.dial()
	for _, request := range []string{put + "\n", put + "\n", "GET /x HTTP/1.1\nHost: h\n\n", "PUT /x HTTP/1.1\nHost: h\n\n", "PUT /x/.. HTTP/1.1\nHost: h\n\n"} {
		caller.send("%s", request)
		caller.answer()
	}
	w.ends(fence.Finished)
	w.ends(fence.Finished)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name := family.GetName()
			for _, label := range m.GetLabel() {
				name += " " + label.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	const requests = "writ_guard_http_requests_total "
	want := map[string]float64{
		requests + "ambiguous_address ": 1, requests + "broken all": 0, requests + "finished all": 2,
		requests + "no_credential all": 1, requests + "not_sent all": 0, requests + "passed all": 1, "writ_guard_http_under_way": 0,
	}
	if got["writ_guard_http_under_way"] == 1 { // the last is leaving
		want["writ_guard_http_under_way"] = 1
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if _, err := proxy.New(proxy.Config{
		Routes: []route.Route{{Resource: "r", Upstream: "up"}}, Upstreams: []proxy.Upstream{{Name: "up", URL: "http://x"}}, Registerer: registry,
	}, w.keeper, nil); err == nil {
		t.Error("metrics were registered twice")
	}
}

func TestConfigErrorsNameFieldAndFix(t *testing.T) {
	good := func() proxy.Config {
		return proxy.Config{
			Routes:    []route.Route{{Resource: "r", Upstream: "up"}},
			Upstreams: []proxy.Upstream{{Name: "up", URL: "http://127.0.0.1:9000"}},
		}
	}
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	for field, change := range map[string]func(*proxy.Config){
		"routes":                        func(c *proxy.Config) { c.Routes = nil },
		"routes[0].upstream":            func(c *proxy.Config) { c.Routes[0].Upstream = "down" },
		"routes[0].listener":            func(c *proxy.Config) { c.Routes[0].Listener, c.Listeners = "x", []string{"main"} },
		"upstreams":                     func(c *proxy.Config) { c.Upstreams = nil },
		"upstreams[0].url":              func(c *proxy.Config) { c.Upstreams[0].URL = "127.0.0.1:9000" },
		"upstreams[0].dial_timeout":     func(c *proxy.Config) { c.Upstreams[0].DialTimeout = -1 },
		"upstreams[0].response_timeout": func(c *proxy.Config) { c.Upstreams[0].ResponseTimeout = -1 },
		"upstreams[0].idle_timeout":     func(c *proxy.Config) { c.Upstreams[0].IdleTimeout = -1 },
		"upstreams[0].max_idle":         func(c *proxy.Config) { c.Upstreams[0].MaxIdle = -1 },
		"upstreams[1].name":             func(c *proxy.Config) { c.Upstreams = append(c.Upstreams, c.Upstreams[0]) },
		"limits.max_concurrent":         func(c *proxy.Config) { c.Limits.MaxConcurrent = -1 },
		"limits.max_header_bytes":       func(c *proxy.Config) { c.Limits.MaxHeaderBytes = 8 << 10 },
		"limits.max_body_bytes":         func(c *proxy.Config) { c.Limits.MaxBodyBytes = -1 },
		"limits.header_timeout":         func(c *proxy.Config) { c.Limits.HeaderTimeout = -1 },
		"limits.idle_timeout":           func(c *proxy.Config) { c.Limits.IdleTimeout = 1 },
		"limits.linger":                 func(c *proxy.Config) { c.Limits.Linger = -1 },
	} {
		cfg := good()
		change(&cfg)
		err := cfg.Validate()
		if (!errors.Is(err, proxy.ErrConfig) && !errors.Is(err, route.ErrConfig)) || !strings.Contains(err.Error(), ": "+field+": ") {
			t.Errorf("%s: %v", field, err)
		}
		if _, again := proxy.New(cfg, newGatekeeper(), nil); again == nil {
			t.Errorf("%s: New takes it", field)
		}
	}
	for _, bad := range []string{"", "ftp://x", "http://", "http://:80", "http://u:p@x", "http://x?q", "http://x#f", "http:x", "http://%zz"} {
		cfg := good()
		cfg.Upstreams[0].URL = bad
		if err := cfg.Validate(); !errors.Is(err, proxy.ErrConfig) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := proxy.New(good(), nil, nil); !errors.Is(err, proxy.ErrConfig) {
		t.Error(err)
	}
	stamps := good()
	stamps.Routes[0].Mode = route.Stamp
	if _, err := proxy.New(stamps, newGatekeeper(), nil); !errors.Is(err, proxy.ErrConfig) {
		t.Error(err)
	}
}

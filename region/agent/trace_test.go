package agent

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease/clock/bubble"
	"github.com/writ-io/writ/region"
)

const aTrace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// What hooks of each kind are told of the trace that they are a part of.
func TestHooksAreToldTheTrace(t *testing.T) {
	out, err := script(`echo "[$TRACEPARENT]"`).Run(t.Context(), &writv1.Task{Traceparent: aTrace})
	if err != nil || out.Output != "["+aTrace+"]\n" {
		t.Errorf("%q %v", out.Output, err)
	}
	if out, err = script(`echo "[$TRACEPARENT]"`).Run(t.Context(), &writv1.Task{}); err != nil || out.Output != "[]\n" {
		t.Errorf("without a trace: %q %v", out.Output, err)
	}
	var told []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		told = append(told, r.Header.Get("traceparent"))
	}))
	defer server.Close()
	if _, err := (&Request{URL: server.URL}).Run(t.Context(), &writv1.Task{Traceparent: aTrace}); err != nil {
		t.Error(err)
	}
	_, _ = (&Canary{URL: server.URL}).Run(t.Context(), &writv1.Task{Traceparent: aTrace, Writ: "w", OldWrit: "o"}) // nothing refuses the old one
	if strings.Join(told, " ") != strings.Join([]string{aTrace, aTrace, aTrace}, " ") {
		t.Errorf("told %q", told)
	}
}

// A hook that is traced is told its own span, and the agent tells of it when it has run.
func TestAHookThatHasRunIsToldOf(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var ran []Ran
		var got string
		cfg := Config{Name: "agent-eu", Region: "eu", DataDir: t.TempDir(), Quorum: &fakeQuorum{}, Groups: []Group{hooks(writv1.HookKind_HOOK_KIND_DRAIN,
			func(_ context.Context, task *writv1.Task) (Outcome, error) {
				got = task.GetTraceparent()
				return Outcome{}, nil
			})}, Traced: func(r Ran) { ran = append(ran, r) }}
		cfg.Groups[0].Name = "g"
		a, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		for _, traceparent := range []string{aTrace, ""} {
			task := &writv1.Task{Group: "g", Promotion: "g-1.1", Step: uint64(1 + len(traceparent)), Kind: writv1.HookKind_HOOK_KIND_DRAIN, Traceparent: traceparent}
			if event := a.begin(t.Context(), Begin{Task: task}); event != nil {
				t.Fatal(event)
			}
			<-a.finished
			if _, span, _, ok := region.TraceContext(got); ok != (traceparent != "") || ok && (len(ran) != 1 || span != ran[0].Span || ran[0].Traceparent != aTrace) {
				t.Errorf("told %q, and told of %+v", got, ran)
			}
		}
		if len(ran) != 1 || ran[0].Result.GetOutcome() != writv1.HookOutcome_HOOK_OUTCOME_DONE {
			t.Errorf("told of %+v", ran)
		}
		a.hooks.Wait()
		if err := a.journal.Close(); err != nil {
			t.Error(err)
		}
	})
}

// What is to be done elsewhere was not done.
func TestRedirectsAreNotFollowed(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path)
		if r.URL.Path == "/" {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}
	}))
	defer server.Close()
	for _, client := range []*http.Client{nil, server.Client()} {
		if _, err := (&Request{URL: server.URL + "/", Client: client}).Run(t.Context(), &writv1.Task{}); err == nil {
			t.Error("a redirect was taken for done")
		}
		if _, err := (&RequestProbe{URL: server.URL + "/", Client: client}).Look(t.Context()); err == nil {
			t.Error("a redirect was taken for health")
		}
	}
	if strings.Join(asked, "") != "////" {
		t.Errorf("asked %v", asked)
	}
}

// The answer to an older poll that comes late would bring back what a newer one has ended.
func TestAnOlderAnswerComesTooLate(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var ran []uint64
		cfg := Config{Name: "agent-eu", Region: "eu", DataDir: t.TempDir(), Quorum: &fakeQuorum{}, Groups: []Group{hooks(writv1.HookKind_HOOK_KIND_DRAIN,
			func(_ context.Context, task *writv1.Task) (Outcome, error) {
				ran = append(ran, task.GetStep())
				return Outcome{}, nil
			})}}
		cfg.Groups[0].Name = "g"
		a, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		old := &writv1.AgentPollResponse{Tasks: []*writv1.Task{{Group: "g", Promotion: "g-1.2", Epoch: 1, Term: 1, Step: 5, Kind: writv1.HookKind_HOOK_KIND_DRAIN}}}
		a.answered(t.Context(), pollAnswer{number: 2, response: &writv1.AgentPollResponse{}})
		a.answered(t.Context(), pollAnswer{number: 1, response: old})
		synctest.Wait()
		if len(ran) != 0 || len(a.running) != 0 {
			t.Errorf("ran %v", ran)
		}
		a.hooks.Wait()
		if err := a.journal.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A probe that gives up in time has looked, and has not been answered: that is a failure, and three in a row are one for good.
func TestAProbeWithoutAnAnswerFails(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		probe := funcProbe(func(ctx context.Context) (Sight, error) {
			<-ctx.Done()
			return Sight{}, ctx.Err()
		})
		a, err := New(Config{Name: "agent-eu", Region: "eu", DataDir: t.TempDir(), Quorum: &fakeQuorum{}, Groups: []Group{{Name: "g", Probe: probe}}})
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []writv1.Health{writv1.Health_HEALTH_DEGRADED, writv1.Health_HEALTH_DEGRADED, writv1.Health_HEALTH_FAILED} {
			ctx, cancel := context.WithTimeout(t.Context(), a.cfg.ProbeTimeout)
			a.lookAt(ctx, a.groups["g"])
			cancel()
			if got := a.reports()[0]; got.GetHealth() != want {
				t.Errorf("health %v, want %v: %s", got.GetHealth(), want, got.GetDetail())
			}
		}
		if err := a.journal.Close(); err != nil {
			t.Error(err)
		}
	})
}

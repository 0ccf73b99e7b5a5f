package fencetest

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/writ-io/writ/fence"
)

// model is a guard in memory, with one flaw if so wanted.
type model struct {
	flaw string

	mu     sync.Mutex
	change *sync.Cond
	floors map[string]fence.Token
	flight map[string]map[fence.Token]int
}

func newModel(flaw string) *model {
	m := &model{flaw: flaw, floors: make(map[string]fence.Token), flight: make(map[string]map[fence.Token]int)}
	m.change = sync.NewCond(&m.mu)
	return m
}

func (m *model) Write(_ context.Context, resource string, token fence.Token, storage func()) error {
	if m.flaw == "wrong resource" {
		resource = "any"
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !token.Valid() && m.flaw != "malformed" {
		return fence.ErrInvalidToken
	}
	floor := m.floors[resource]
	switch {
	case m.flaw == "> for >=" && token == floor, token < floor:
		if m.flaw == "refusal lowers" {
			m.floors[resource] = token
		}
		if m.flaw == "carries out" {
			storage()
		}
		if m.flaw == "silent" {
			return nil
		}
		return fmt.Errorf("%w: the floor is %v", fence.ErrStale, floor)
	case m.flaw != "no floor":
		m.floors[resource] = token
	}
	for m.flaw != "no drain" && m.older(resource, token) {
		m.change.Wait()
	}
	if token < m.floors[resource] && m.flaw != "not checked again" {
		return fence.ErrStale
	}
	if m.flight[resource] == nil {
		m.flight[resource] = make(map[fence.Token]int)
	}
	m.flight[resource][token]++
	m.mu.Unlock()
	storage()
	m.mu.Lock()
	if m.flight[resource][token]--; m.flight[resource][token] == 0 {
		delete(m.flight[resource], token)
	}
	m.change.Broadcast()
	return nil
}

func (m *model) older(resource string, token fence.Token) bool {
	for t := range m.flight[resource] {
		if t < token {
			return true
		}
	}
	return false
}

func (m *model) Restart(*testing.T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.flaw == "floor in memory" {
		clear(m.floors)
	}
}

func TestAGoodGuardPasses(t *testing.T) {
	Run(t, Config{Open: func(*testing.T) Guard { return newModel("") }})
}

func TestFlawsAreFound(t *testing.T) {
	for flaw, check := range map[string]string{
		"no floor":        "NothingOlderLater",
		"> for >=":        "NothingOlderLater",
		"carries out":     "NothingOlderLater",
		"silent":          "NothingOlderLater",
		"wrong resource":  "ResourcesAreIndependent",
		"malformed":       "TokensThatAreNone",
		"no drain":        "NewerWaitsForOlder",
		"floor in memory": "FloorsOutliveARestart",
		"refusal lowers":  "RefusedWritesChangeNoFloor",
	} {
		t.Run(flaw, func(t *testing.T) {
			c := Config{Resources: [2]string{"a", "b"}, Base: 1 << 48, Settle: 100 * time.Millisecond}
			problem := checks[check](t, c, newModel(flaw))
			if problem == "" {
				t.Errorf("%s does not find it", check)
			}
			t.Log(problem)
		})
	}
}

// admitter makes an admitter of a model.
type admitter struct{ *model }

type admission struct {
	token fence.Token
	done  chan struct{}
	over  chan error
}

func (a admitter) Admit(ctx context.Context, w fence.Write) (fence.Admission, error) {
	begun, adm := make(chan struct{}), admission{token: w.Token, done: make(chan struct{}), over: make(chan error, 1)}
	go func() {
		adm.over <- a.Write(ctx, w.Resource, w.Token, func() {
			close(begun)
			<-adm.done
		})
	}()
	select {
	case <-begun:
		return adm, nil
	case err := <-adm.over:
		return nil, err
	}
}

func (a admission) Token() fence.Token   { return a.token }
func (a admission) Cut() <-chan struct{} { return nil }
func (a admission) Done(fence.Outcome) {
	close(a.done)
	if err := <-a.over; err != nil { // it was admitted
		panic(err)
	}
}

func TestAdmitting(t *testing.T) {
	Run(t, Config{Open: func(*testing.T) Guard { return Admitting(admitter{newModel("")}) }})
}

// The middleware, over HTTP.
func TestMiddleware(t *testing.T) {
	Run(t, Config{Open: func(t *testing.T) Guard {
		var stores sync.Map
		storage := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			store, _ := stores.Load(r.Header.Get("Call"))
			store.(func())()
		})
		server := httptest.NewServer(fence.Middleware(admitter{newModel("")},
			func(r *http.Request) (string, bool) { return r.URL.Path[1:], true },
			fence.MiddlewareOptions{Trusted: func(*http.Request) bool { return true }})(storage))
		t.Cleanup(server.Close)
		return GuardFunc(func(ctx context.Context, resource string, token fence.Token, store func()) error {
			call := fmt.Sprintf("%p", &store)
			stores.Store(call, store)
			request, err := http.NewRequestWithContext(ctx, http.MethodPut, server.URL+"/"+resource, nil)
			if err != nil {
				return err
			}
			request.Header.Set("Call", call)
			request.Header.Set(fence.HeaderToken, token.Decimal())
			response, err := server.Client().Do(request)
			if err != nil {
				return err
			}
			defer func() { _ = response.Body.Close() }()
			return fence.ErrorFromResponse(response)
		})
	}})
}

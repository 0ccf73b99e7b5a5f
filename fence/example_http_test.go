package fence_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"

	"github.com/writ-io/writ/fence"
)

// memory admits by the highest token that it has seen. A program has a guard.Guard, or a check.Client of one.
type memory struct {
	mu    sync.Mutex
	floor fence.Token
}

func (m *memory) Admit(_ context.Context, w fence.Write) (fence.Admission, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.Token < m.floor {
		return nil, &fence.StaleError{Resource: w.Resource, Have: w.Token, Floor: m.floor}
	}
	m.floor = w.Token
	return admission{w.Token}, nil
}

type admission struct{ token fence.Token }

func (a admission) Token() fence.Token { return a.token }
func (admission) Cut() <-chan struct{} { return nil }
func (admission) Done(fence.Outcome)   {}

// A service puts a guard before its own storage, and its client presents what it holds.
func ExampleMiddleware() {
	guard := fence.Middleware(&memory{}, func(r *http.Request) (string, bool) {
		return "orders", strings.HasPrefix(r.URL.Path, "/orders/")
	}, fence.MiddlewareOptions{Trusted: func(*http.Request) bool { return true }})
	server := httptest.NewServer(guard(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		admitted, _ := fence.AdmittedFromContext(r.Context())
		fmt.Println("written under", admitted.Token)
	})))
	defer server.Close()

	client := &http.Client{Transport: fence.Transport(nil)}
	for _, held := range []string{"4.7", "4.8", "4.7"} {
		token, err := fence.ParseToken(held)
		if err != nil {
			log.Fatal(err)
		}
		ctx := fence.NewContext(context.Background(), fence.Write{Resource: "orders", Token: token})
		request, err := http.NewRequestWithContext(ctx, http.MethodPut, server.URL+"/orders/1", nil)
		if err != nil {
			log.Fatal(err)
		}
		resp, err := client.Do(request)
		if err != nil {
			log.Fatal(err)
		}
		if err := fence.ErrorFromResponse(resp); errors.Is(err, fence.ErrStale) {
			fmt.Println(err)
		}
		resp.Body.Close()
	}
	// Output:
	// written under 4.7
	// written under 4.8
	// fence: stale token: 4.7 for resource "orders" is below the floor 4.8: stop writing and acquire again
}

func ExampleRun() {
	guard := &memory{}
	write := func(ctx context.Context) error {
		admitted, _ := fence.AdmittedFromContext(ctx)
		fmt.Println("written under", admitted.Token)
		return nil
	}
	for _, sequence := range []uint64{8, 7} {
		token, err := fence.NewToken(4, sequence)
		if err != nil {
			log.Fatal(err)
		}
		err = fence.Run(context.Background(), guard, fence.Write{Resource: "orders", Token: token}, write)
		fmt.Println(err)
	}
	// Output:
	// written under 4.8
	// <nil>
	// fence: stale token: 4.7 for resource "orders" is below the floor 4.8: stop writing and acquire again
}

func ExampleParseHeader() {
	header := http.Header{}
	fence.Credential{Token: 4<<48 | 7}.Set(header)
	for _, trusted := range []bool{true, false} {
		presented, err := fence.ParseHeader(header, trusted)
		fmt.Println(presented.Token, err)
	}
	// Output:
	// 4.7 <nil>
	// 0.0 fence: invalid token: Writ-Token: is not trusted here: present a signed writ in the header Writ
}

func ExampleProblemFor() {
	p := fence.ProblemFor(&fence.StaleError{Resource: "orders", Have: 4<<48 | 7, Floor: 4<<48 | 8})
	fmt.Println(p.Status, p.Reason, p.Resource, p.Token, p.Floor)
	// Output: 412 STALE_TOKEN orders 1125899906842631 1125899906842632
}

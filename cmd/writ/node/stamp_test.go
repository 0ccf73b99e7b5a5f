package node

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/cmd/writ-guard/sidecar"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/quorum/quorumtest/freeport"
)

// stamped is a guard in mode stamp, before a storage that remembers under which tokens it was written.
type stamped struct {
	region, url string
	mu          sync.Mutex
	tokens      []string // guarded by mu
}

func (th *theater) stampGuard(name string) *stamped {
	th.t.Helper()
	g := &stamped{region: name}
	storage := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		g.mu.Lock()
		defer g.mu.Unlock()
		g.tokens = append(g.tokens, r.Header.Get(fence.HeaderToken))
	}))
	th.t.Cleanup(storage.Close)
	address := freeport.Address(th.t)
	g.url = "http://" + address + "/orders/1"
	c, err := sidecar.Load(th.write("stamp-"+name+".yaml", fmt.Sprintf(`
name: s-%[1]s
region: %[1]s
data_dir: stamp-%[1]s
quorum: {endpoints: [%[2]s], insecure: true}
slack: 100ms
listeners: [{name: main, listen: "%[3]s"}]
upstreams: [{name: store, url: "%[4]s"}]
routes: [{path: /orders, resource: orders, upstream: store, mode: stamp}]
admin: {listen: "off"}
`, name, th.endpoints(), address, storage.URL)), nil)
	must(th.t, err)
	s, err := sidecar.Start(c, sidecar.Options{Version: "test"})
	must(th.t, err)
	th.t.Cleanup(func() { _ = s.Stop(context.Background()) })
	return g
}

// write writes as a program does that knows nothing of writs, or that claims a token of its own.
func (g *stamped) write(t *testing.T, claim string) (status int, problem string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, g.url, strings.NewReader("x"))
	must(t, err)
	if claim != "" {
		req.Header.Set(fence.HeaderToken, claim)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(body)
}

func (g *stamped) seen() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.tokens...)
}

// leads checks that programs can write through this guard, under the present tenure's token and no other, and not through
// the other one, whose storage gets nothing.
func (g *stamped) leads(t *testing.T, other *stamped, token uint64) {
	t.Helper()
	eventually(t, func() string {
		if status, problem := g.write(t, ""); status != http.StatusOK {
			return fmt.Sprintf("%s leads, and its guard answers %d %s", g.region, status, problem)
		}
		return ""
	})
	want, before := fence.Token(token).Decimal(), other.seen()
	for _, claim := range []string{"", "1", "9000000000000000000"} {
		if status, problem := g.write(t, claim); status != http.StatusOK {
			t.Errorf("%s leads, and its guard answers %d %s", g.region, status, problem)
		}
		if seen := g.seen(); seen[len(seen)-1] != want {
			t.Errorf("in %s was written under %s, want %s", g.region, seen[len(seen)-1], want)
		}
		if status, problem := other.write(t, claim); status != http.StatusPreconditionFailed && status != http.StatusServiceUnavailable {
			t.Errorf("%s does not lead, and its guard answers %d %s", other.region, status, problem)
		}
	}
	if after := other.seen(); len(after) != len(before) {
		t.Errorf("in %s was written under %v", other.region, after[len(before):])
	}
}

// Programs that know nothing of writs can write in the region whose turn it is: guards in mode stamp present its tenure.
func TestStampsFollowTheTenure(t *testing.T) {
	th := newTheater(t, nil)
	th.steady("eu")
	eu, us := th.stampGuard("eu"), th.stampGuard("us")
	token := func() uint64 {
		g := ask(th, func(ctx context.Context) (*writv1.Group, error) {
			return th.regions().GetGroup(ctx, &writv1.GetGroupRequest{Name: "orders"})
		})
		return g.GetToken()
	}
	first := token()
	eu.leads(t, us, first)
	there := th.promote(t.Context(), "us", writv1.PromotionMode_PROMOTION_MODE_SWITCHOVER)
	us.leads(t, eu, there.GetToken())
	back := th.promote(t.Context(), "", writv1.PromotionMode_PROMOTION_MODE_FAILBACK)
	eu.leads(t, us, back.GetToken())
	if first == 0 || there.GetToken() <= first || back.GetToken() <= there.GetToken() || back.GetToken() != token() {
		t.Errorf("tokens %d, %d, %d, and at last %d", first, there.GetToken(), back.GetToken(), token())
	}
	// Each region's storage saw its own tenures, in their order.
	for _, c := range []struct {
		g    *stamped
		want []uint64
	}{{eu, []uint64{first, back.GetToken()}}, {us, []uint64{there.GetToken()}}} {
		for i, text := range c.g.seen() {
			ok := false
			for _, want := range c.want {
				ok = ok || text == fence.Token(want).Decimal()
			}
			if !ok {
				t.Errorf("write %d in %s was under %s, want %v", i, c.g.region, text, c.want)
			}
		}
	}
}

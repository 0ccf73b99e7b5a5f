package externaltest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard/route"
)

// Issuer is the name of the quorum that signs.
const Issuer = "prod"

// Gate is an admitter that guards every resource in Floors.
type Gate struct {
	signer *fence.Signer
	keys   fence.KeySet

	mu     sync.Mutex
	floors map[string]fence.Token // guarded by mu
	open   []*Admission           // guarded by mu
	ended  []fence.Outcome        // guarded by mu
	refuse error                  // guarded by mu
	hold   bool                   // guarded by mu: Admit waits for its context
	change chan struct{}          // guarded by mu; closed and replaced when something ends or begins
}

var _ fence.Admitter = (*Gate)(nil)

// New returns a gate that guards resources, each with the floor 1.1.
func New(t testing.TB, resources ...string) *Gate {
	t.Helper()
	signer, err := fence.GenerateSigner()
	if err != nil {
		t.Fatal(err)
	}
	ring, err := fence.NewKeyRing(signer, fence.KeySet{})
	if err != nil {
		t.Fatal(err)
	}
	g := &Gate{signer: signer, keys: ring.Keys(), floors: map[string]fence.Token{}, change: make(chan struct{})}
	for _, r := range resources {
		g.floors[r] = Token(t, 1)
	}
	return g
}

// Routes returns the routes of the tests: what is below /orders/, /trusted/ and /stamped/ is for resource. The second takes
// bare tokens, and the third stamps.
func Routes(t testing.TB, resource string) *route.Table {
	t.Helper()
	table, err := route.New([]route.Route{
		{Path: "/orders", Resource: resource},
		{Path: "/trusted", Resource: resource, Trusted: true},
		{Path: "/stamped", Resource: resource, Mode: route.Stamp},
		{Path: "/open", Unguarded: route.UnguardedPass},
	}, route.Known{})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// Stamper is a region that holds everything under 1.7.
type Stamper struct{}

// Grant answers 1.7.
func (Stamper) Grant(string) (fence.Token, bool) { return 1<<48 | 7, true }

// Token returns 1.sequence.
func Token(t testing.TB, sequence uint64) fence.Token {
	t.Helper()
	token, err := fence.NewToken(1, sequence)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// Sign returns a signed writ.
func (g *Gate) Sign(t testing.TB, resource string, token fence.Token) string {
	t.Helper()
	return Sign(t, g.signer, Issuer, resource, token)
}

// Sign returns a writ that signer has signed.
func Sign(t testing.TB, signer *fence.Signer, issuer, resource string, token fence.Token) string {
	t.Helper()
	compact, err := signer.Sign(fence.Writ{
		Issuer: issuer, Resource: resource, Holder: "writer", Token: token, IssuedAt: time.Unix(1_700_000_000, 0),
	})
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

// Raise lifts the floor of a resource and cuts what is older.
func (g *Gate) Raise(resource string, floor fence.Token) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.raise(resource, floor)
}

func (g *Gate) raise(resource string, floor fence.Token) {
	g.floors[resource] = floor
	for _, a := range g.open {
		if a.resource == resource && a.token < floor && !a.isCut {
			a.isCut = true
			close(a.cut)
		}
	}
}

// Refuse makes every write be refused with err; nil ends that.
func (g *Gate) Refuse(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refuse = err
}

// Hold makes every write wait until its context ends.
func (g *Gate) Hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.hold = true
}

// Admit implements [fence.Admitter].
func (g *Gate) Admit(ctx context.Context, w fence.Write) (fence.Admission, error) {
	token := w.Token
	if w.Writ != "" {
		said, err := g.keys.Verify(w.Writ)
		if err != nil {
			return nil, err
		}
		if err := said.Require(fence.Expected{Issuer: Issuer, Resource: w.Resource}); err != nil {
			return nil, err
		}
		token = said.Token
	}
	g.mu.Lock()
	if g.hold {
		g.mu.Unlock()
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	defer g.mu.Unlock()
	floor, ok := g.floors[w.Resource]
	switch {
	case g.refuse != nil:
		return nil, g.refuse
	case !ok:
		return nil, fence.ErrUnguarded
	case !token.Valid():
		return nil, fence.ErrInvalidToken
	case token < floor:
		return nil, &fence.StaleError{Resource: w.Resource, Have: token, Floor: floor}
	case token > floor:
		g.raise(w.Resource, token)
	}
	a := &Admission{gate: g, resource: w.Resource, token: token, cut: make(chan struct{})}
	g.open = append(g.open, a)
	g.changed()
	return a, nil
}

// changed wakes Await. The caller holds mu.
func (g *Gate) changed() {
	close(g.change)
	g.change = make(chan struct{})
}

// Open is how many writes are under way.
func (g *Gate) Open() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.open)
}

// Ended answers how writes ended, in order.
func (g *Gate) Ended() []fence.Outcome {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]fence.Outcome(nil), g.ended...)
}

// AwaitEnded waits until n writes have ended, and answers how.
func (g *Gate) AwaitEnded(t testing.TB, n int) []fence.Outcome {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		g.mu.Lock()
		change, ended := g.change, len(g.ended)
		g.mu.Unlock()
		if ended >= n {
			return g.Ended()
		}
		select {
		case <-change:
		case <-deadline:
			t.Fatalf("%d writes have ended, want %d", ended, n)
		}
	}
}

// Admission is a write that was admitted.
type Admission struct {
	gate     *Gate
	resource string
	token    fence.Token
	cut      chan struct{}
	isCut    bool // guarded by gate.mu
	done     bool // guarded by gate.mu
}

// Token implements [fence.Admission].
func (a *Admission) Token() fence.Token { return a.token }

// Cut implements [fence.Admission].
func (a *Admission) Cut() <-chan struct{} { return a.cut }

// Done implements [fence.Admission].
func (a *Admission) Done(outcome fence.Outcome) {
	g := a.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if a.done {
		panic("externaltest: Done was called twice")
	}
	a.done = true
	for i, open := range g.open {
		if open == a {
			g.open = append(g.open[:i], g.open[i+1:]...)
			break
		}
	}
	g.ended = append(g.ended, outcome)
	g.changed()
}

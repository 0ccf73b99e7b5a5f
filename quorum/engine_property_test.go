package quorum

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/audit"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// engineWorld lets engines of two nodes compete for one store, whose operations succeed, fail, or have an effect that nobody
// hears of, now or much later. It holds what is committed and what is answered against the invariants.
type engineWorld struct {
	t     *rapid.T
	now   clock.Instant
	step  int
	nodes []*engineNode

	kv       map[string][]byte
	revision int64
	term     Term
	pending  []*storeOp

	calls   map[lease.CallID]*worldCall
	last    lease.CallID
	highest map[lease.Resource]fence.Token // ever committed
	acked   map[lease.Resource]fence.Token // highest that was answered
	granted map[fence.Token]string         // to which request
	beliefs map[lease.Resource]map[fence.Token]clock.Instant
	over    map[string]bool // requests whose callers have given their grants up
	chain   audit.Head
	audited map[string]bool
}

type engineNode struct {
	name    string
	id      uint64
	engine  *Engine
	life    int // counts restarts
	effects Effects
	witness *writv1.WitnessRecord
	// proven is when the newest round began that succeeded.
	proven int
}

type worldCall struct {
	node    *engineNode
	command any
	intake  clock.Instant
	step    int
	floor   fence.Token
	left    bool // nobody waits for the answer, which may still come
}

// storeOp is an effect under way. It is told its result once, but may take effect after it.
type storeOp struct {
	node    *engineNode
	life    int
	began   int
	told    bool
	term    Term
	claim   uint64
	load    uint64
	round   uint64
	writes  []Write
	confirm bool
	save    *Witnessed
}

func newEngineWorld(t *rapid.T) *engineWorld {
	w := &engineWorld{
		t: t, now: clock.Instant(time.Hour), kv: map[string][]byte{}, calls: map[lease.CallID]*worldCall{},
		highest: map[lease.Resource]fence.Token{}, acked: map[lease.Resource]fence.Token{}, granted: map[fence.Token]string{},
		beliefs: map[lease.Resource]map[fence.Token]clock.Instant{}, audited: map[string]bool{},
		over: map[string]bool{},
	}
	for i, name := range []string{"n1", "n2"} {
		n := &engineNode{name: name, id: uint64(i + 1), witness: &writv1.WitnessRecord{Cluster: "test", Node: name, MemberId: uint64(i + 1)}}
		w.nodes = append(w.nodes, n)
		w.restart(n)
	}
	return w
}

// restart forgets what the node had in memory. Nobody hears from it again about what it was asked.
func (w *engineWorld) restart(n *engineNode) {
	n.life++
	n.engine = NewEngine(EngineConfig{
		Node: n.name, Cluster: "test", TokenBlock: 12, RetryClaim: 50 * time.Millisecond,
		Table: lease.TableConfig{Retention: 3 * time.Second},
	})
	w.drop(n)
	w.tell(n, Tick{})
}

func (w *engineWorld) drop(n *engineNode) {
	maps.DeleteFunc(w.calls, func(_ lease.CallID, c *worldCall) bool { return c.node == n })
}

// tell steps an engine and takes its effects.
func (w *engineWorld) tell(n *engineNode, ev EngineEvent) {
	w.step++
	e := n.engine.Step(lease.Moment{Now: w.now, Wall: time.UnixMilli(int64(w.now) / 1e6).UTC()}, ev)
	n.effects = *e
	for _, r := range e.Replies {
		w.answer(n, r)
	}
	if e.DropAll {
		w.drop(n)
	}
	if n.engine.Role() == Recovering {
		w.t.Fatalf("%s takes the state for foreign: %s", n.name, n.engine.identity.Recovery.Reason)
	}
	op := &storeOp{node: n, life: n.life, began: w.step, term: e.Term, claim: e.Claim, load: e.Load, writes: e.Commit, confirm: e.Confirm}
	if e.Commit != nil || e.Confirm {
		op.round = e.Round
		withinLimits(w.t, e.Commit)
	}
	if op.claim != 0 || op.load != 0 || op.round != 0 {
		w.pending = append(w.pending, op)
	}
	if e.Witness != nil {
		save := *e.Witness
		w.pending = append(w.pending, &storeOp{node: n, life: n.life, began: w.step, save: &save})
	}
}

// carryOut lets an operation take effect and answers its result.
func (w *engineWorld) carryOut(op *storeOp) EngineEvent {
	switch {
	case op.claim != 0:
		w.revision++
		w.term = Term(w.revision)
		return Claimed{Attempt: op.claim, Term: w.term, Nonce: fmt.Sprint("nonce", w.revision)}
	case op.load != 0:
		return w.load(op)
	case op.save != nil:
		id := w.identity()
		if uint32(op.save.Epoch) == id.Epoch {
			op.node.witness = proto.CloneOf(op.node.witness)
			op.node.witness.Epoch, op.node.witness.Incarnation = id.Epoch, id.Incarnation
			op.node.witness.Ceiling = max(op.node.witness.Ceiling, op.save.Ceiling)
		}
		return *op.save
	case op.term != w.term:
		return RoundDone{Round: op.round, Err: ErrDeposed}
	case !op.confirm:
		w.commit(op)
	}
	return RoundDone{Round: op.round}
}

func (w *engineWorld) identity() *writv1.IdentityRecord {
	id := &writv1.IdentityRecord{}
	w.must(proto.Unmarshal(w.kv[KeyIdentity], id))
	return id
}

func (w *engineWorld) load(op *storeOp) Loaded {
	l := Loaded{
		Attempt: op.load, Revision: w.revision, Own: op.node.witness, Checkpoints: map[lease.Resource][]byte{},
		Members: []MemberInfo{{ID: 1, Name: "n1"}, {ID: 2, Name: "n2"}},
	}
	if w.kv[KeyIdentity] != nil {
		l.Identity = w.identity()
	}
	for _, key := range slices.Sorted(maps.Keys(w.kv)) {
		if name, ok := cutKey(key, prefixCheckpoint); ok {
			l.Checkpoints[lease.Resource(name)] = w.kv[key]
		}
		if _, ok := cutKey(key, prefixLease); ok {
			var rec lease.Record
			w.must(rec.UnmarshalBinary(w.kv[key]))
			l.Leases = append(l.Leases, rec)
		}
	}
	return l
}

// commit applies the writes and holds them against what was committed before.
func (w *engineWorld) commit(op *storeOp) {
	w.revision++
	seen := map[string]bool{}
	for _, x := range op.writes {
		if seen[x.Key] {
			w.t.Fatalf("%s is written twice", x.Key)
		}
		seen[x.Key] = true
		if x.Value == nil {
			delete(w.kv, x.Key)
			continue
		}
		w.kv[x.Key] = x.Value
		if _, ok := cutKey(x.Key, prefixLease); ok {
			w.committed(op.node, x.Value)
		}
		if strings.HasPrefix(x.Key, prefixAudit) {
			r, next, err := audit.Verify(w.chain, x.Value)
			if err != nil || x.Key != AuditKey(next.Sequence) {
				w.t.Fatalf("%s does not continue the chain: %v", x.Key, err)
			}
			w.chain, w.audited[r.Target+" "+r.Detail["token"]] = next, true
		}
	}
	if id := w.identity(); id.AuditSequence != w.chain.Sequence || !bytes.Equal(id.AuditHash, w.chain.Hash) {
		w.t.Fatalf("the identity record names %d as the head of the chain, which is %d", id.AuditSequence, w.chain.Sequence)
	}
}

// committed holds a record against S1: tokens strictly increase, none is granted twice, and all are below a ceiling that is
// in the state and in the witness of the node that grants.
func (w *engineWorld) committed(n *engineNode, stored []byte) {
	var rec lease.Record
	w.must(rec.UnmarshalBinary(stored))
	before := w.highest[rec.Resource]
	switch {
	case rec.Token == 0 || rec.Token == before: // not granted, or not since it was forgotten
		return
	case rec.Token < before:
		w.t.Fatalf("%s goes from %v back to %v", rec.Resource, before, rec.Token)
	}
	request := requestName(rec.Resource, rec.Holder.Principal, rec.RequestID)
	w.grant(rec.Token, request)
	if s := rec.Token.Sequence(); s > w.identity().Ceiling || s > n.witness.Ceiling {
		w.t.Fatalf("%v is granted below the ceiling %d, of which %s witnessed %d", rec.Token, w.identity().Ceiling, n.name, n.witness.Ceiling)
	}
	w.highest[rec.Resource] = rec.Token
}

// grant notes whose token it is. One that was given up in the same round is only told.
func (w *engineWorld) grant(token fence.Token, request string) {
	if other, ok := w.granted[token]; ok && other != request {
		w.t.Fatalf("%v is granted to %s and to %s", token, other, request)
	}
	w.granted[token] = request
}

// answer holds an answer against what has been proved when it leaves, and against what others believe.
func (w *engineWorld) answer(n *engineNode, r lease.Reply) {
	c := w.calls[r.ID]
	if c == nil || c.node != n {
		w.t.Fatalf("%s answers call %d, which is not open there", n.name, r.ID)
	}
	delete(w.calls, r.ID)
	unproven := []lease.Reason{lease.ReasonNotCoordinator, lease.ReasonUnknownOutcome, lease.ReasonNoQuorum}
	if r.Err != nil && slices.Contains(unproven, r.Err.Reason) {
		return
	}
	if c.step >= n.proven {
		w.t.Fatalf("call %d of step %d is answered with %+v, though %s has shown nothing since step %d", r.ID, c.step, r, n.name, n.proven)
	}
	switch v := r.Value.(type) {
	case *lease.Grant:
		if v.Token > w.highest[v.Resource] || v.Token < c.floor {
			w.t.Fatalf("%v of %s is answered; committed is %v, and %v was answered before it was asked for", v.Token, v.Resource, w.highest[v.Resource], c.floor)
		}
		w.grant(v.Token, requestName(v.Resource, v.Holder.Principal, v.RequestID))
		w.acked[v.Resource] = max(w.acked[v.Resource], v.Token)
		w.believe(v.Resource, v.Token, c.intake.Add(v.TTL))
	case lease.RenewOutcome:
		if ref := c.command.(lease.Renew).Refs[0]; len(v.Failures) == 0 {
			w.believe(ref.Resource, ref.Token, c.intake.Add(worldTTL))
		}
	case lease.Info:
		if _, ok := c.command.(lease.ForceRelease); ok && !w.audited[string(v.Resource)+" "+v.Token.Decimal()] {
			w.t.Fatalf("the forced release of %v of %s is not recorded", v.Token, v.Resource)
		}
	}
}

// believe notes until when a holder believes, who takes its send for the intake, and that nobody else does (S4).
func (w *engineWorld) believe(name lease.Resource, token fence.Token, until clock.Instant) {
	if w.over[w.granted[token]] {
		return
	}
	if w.beliefs[name] == nil {
		w.beliefs[name] = map[fence.Token]clock.Instant{}
	}
	for other, believed := range w.beliefs[name] {
		if other != token && !w.over[w.granted[other]] && believed > w.now && until > w.now {
			w.t.Fatalf("%s: %v is believed until %v while %v is until %v", name, token, until, other, believed)
		}
	}
	w.beliefs[name][token] = max(w.beliefs[name][token], until)
}

func requestName(name lease.Resource, p lease.Principal, id string) string {
	return fmt.Sprintf("%s/%s/%s", name, p, id)
}

func (w *engineWorld) must(err error) {
	if err != nil {
		w.t.Fatal(err)
	}
}

const worldTTL = time.Second

// drawCommand asks for something about a resource, mostly of the newest grant.
func (w *engineWorld) drawCommand(t *rapid.T) any {
	name := rapid.SampledFrom([]lease.Resource{"r", "s"}).Draw(t, "resource")
	who := lease.Caller{Principal: rapid.SampledFrom([]lease.Principal{"p", "q"}).Draw(t, "principal")}
	ref := lease.Ref{Resource: name, Token: w.highest[name]}
	if stored := w.kv[LeaseKey(name)]; stored != nil && rapid.Bool().Draw(t, "holder") {
		var rec lease.Record
		w.must(rec.UnmarshalBinary(stored))
		who.Principal = rec.Holder.Principal
	}
	request := rapid.StringMatching(`[A-D]`).Draw(t, "request")
	switch rapid.IntRange(0, 9).Draw(t, "command") {
	case 0:
		return lease.Renew{Caller: who, Refs: []lease.Ref{ref}}
	case 1:
		if asked := w.granted[ref.Token]; strings.HasPrefix(asked, requestName(name, who.Principal, "")) {
			w.over[asked] = true // whoever asks for this has stopped
		}
		return lease.Release{Caller: who, Ref: ref}
	case 2:
		w.over[requestName(name, who.Principal, request)] = true
		return lease.CancelAcquire{Caller: who, Resource: name, RequestID: request}
	case 3:
		return lease.ForceRelease{Caller: who, Ref: lease.Ref{Resource: name}, Reason: "why not"}
	case 4:
		return lease.Checkpoint{Caller: who, Ref: ref, Data: []byte(rapid.SampledFrom([]string{"", "slot 7"}).Draw(t, "data"))}
	case 5:
		return lease.Inspect{Caller: who, Ref: lease.Ref{Resource: name}}
	}
	wait := rapid.SampledFrom([]time.Duration{0, time.Minute}).Draw(t, "wait")
	return lease.Acquire{Caller: who, Resource: name, RequestID: request, TTL: worldTTL, Wait: wait}
}

func (w *engineWorld) drawSubmit(t *rapid.T) {
	n := rapid.SampledFrom(w.nodes).Draw(t, "node")
	var batch Submits
	for range rapid.IntRange(1, 4).Draw(t, "count") {
		w.last++
		c := &worldCall{node: n, command: w.drawCommand(t), intake: w.now, step: w.step}
		if a, ok := c.command.(lease.Acquire); ok {
			c.floor = w.acked[a.Resource]
		}
		w.calls[w.last] = c
		batch = append(batch, Submit{ID: w.last, Intake: w.now, Command: c.command})
	}
	w.tell(n, batch)
}

// drawResult lets something that is under way end, or have its effect later than its end.
func (w *engineWorld) drawResult(t *rapid.T) {
	if len(w.pending) == 0 {
		t.Skip("nothing is under way")
	}
	op := rapid.SampledFrom(w.pending).Draw(t, "op")
	switch how := rapid.IntRange(0, 11).Draw(t, "how"); {
	case op.save != nil && how <= 2:
		// It takes its time.
	case how == 0 && !op.told: // unknown, and perhaps it happens later
		w.result(op, unknown(op))
	case how == 1: // unknown, and it happened
		w.finish(op)
		w.carryOut(op)
		w.result(op, unknown(op))
	case how == 2: // unknown, and it never happens
		w.finish(op)
		w.result(op, unknown(op))
	default:
		w.finish(op)
		w.result(op, w.carryOut(op))
	}
}

func (w *engineWorld) finish(op *storeOp) {
	w.pending = slices.DeleteFunc(w.pending, func(o *storeOp) bool { return o == op })
}

func unknown(op *storeOp) EngineEvent {
	switch {
	case op.claim != 0:
		return Claimed{Attempt: op.claim, Err: ErrUnknown}
	case op.load != 0:
		return Loaded{Attempt: op.load, Err: ErrUnknown}
	}
	return RoundDone{Round: op.round, Err: ErrUnknown}
}

func (w *engineWorld) result(op *storeOp, ev EngineEvent) {
	if op.told || op.node.life != op.life {
		return
	}
	op.told = true
	if done, ok := ev.(RoundDone); ok && done.Err == nil {
		op.node.proven = max(op.node.proven, op.began)
	}
	w.tell(op.node, ev)
}

func (w *engineWorld) drawWait(t *rapid.T) {
	w.now = w.now.Add(rapid.SampledFrom([]time.Duration{1, worldTTL / 4, worldTTL * 3 / 5, worldTTL - 1, worldTTL}).Draw(t, "by"))
	w.wake()
}

// wake steps every engine that asked for it.
func (w *engineWorld) wake() {
	for _, n := range w.nodes {
		if n.effects.Wake <= w.now {
			w.tell(n, Tick{})
			if n.effects.Wake <= w.now && n.effects.Commit == nil && !n.effects.Confirm && n.effects.Claim == 0 {
				w.t.Fatalf("%s is woken for nothing at %v", n.name, w.now)
			}
		}
	}
}

// settle lets everything succeed until nothing is under way.
func (w *engineWorld) settle() {
	for range 1000 {
		if len(w.pending) == 0 {
			return
		}
		op := w.pending[0]
		w.finish(op)
		w.result(op, w.carryOut(op))
	}
	w.t.Fatal("there is no end of it")
}

// heal leaves one node in charge: it serves, answers, and lets everything run out.
func (w *engineWorld) heal() {
	w.tell(w.nodes[1], Leadership{})
	w.tell(w.nodes[0], Leadership{Leader: true})
	for range 40 {
		w.now = w.now.Add(200 * time.Millisecond)
		w.wake()
		w.settle()
	}
	if n := w.nodes[0]; n.engine.Role() != Serving || n.engine.Held() != 0 {
		w.t.Fatalf("%s is %v and %d leases are held", n.name, n.engine.Role(), n.engine.Held())
	}
	for id, c := range w.calls {
		if c.left {
			continue
		}
		w.t.Fatalf("call %d is never answered: %+v", id, c)
	}
	for key := range w.kv {
		if name, ok := cutKey(key, prefixLease); ok && w.kv[CheckpointKey(lease.Resource(name))] == nil {
			w.t.Fatalf("the record of %s is never forgotten", name)
		}
	}
}

// Whatever the store does to it, the engine keeps S1, S4, D1 and M1, and answers nothing that has not been shown to be its
// own to answer.
func TestEngineKeepsTheInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newEngineWorld(t)
		w.tell(w.nodes[0], Leadership{Leader: true})
		result := w.drawResult
		t.Repeat(map[string]func(*rapid.T){
			"submit": w.drawSubmit, "result": result, "result again": result, "and again": result, "wait": w.drawWait, "wait again": w.drawWait,
			"leadership": func(t *rapid.T) {
				w.tell(rapid.SampledFrom(w.nodes).Draw(t, "node"), Leadership{Leader: rapid.Bool().Draw(t, "leader")})
			},
			"quiet": func(*rapid.T) { w.settle() },
			"abandon": func(t *rapid.T) {
				ids := slices.Sorted(maps.Keys(w.calls))
				if len(ids) == 0 {
					t.Skip("nobody waits")
				}
				id := rapid.SampledFrom(ids).Draw(t, "call")
				w.calls[id].left = true
				w.tell(w.calls[id].node, Abandoned{ID: id})
			},
			"restart": func(t *rapid.T) {
				if rapid.IntRange(0, 3).Draw(t, "really") == 0 {
					w.restart(rapid.SampledFrom(w.nodes).Draw(t, "node"))
				}
			},
		})
		w.heal()
	})
}

package judge

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/audit"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// Promotions and operations are held to who has signed, to how often, and to where the tenure is.
func TestFailover(t *testing.T) {
	const r, digest = lease.Resource("orders"), "d"
	tok := func(n int64) fence.Token { return fence.Token(1<<48 | n) }
	signs := func(who string, counts bool) func(*Judge) {
		return func(j *Judge) { j.Signs(who, digest, func(time.Time) bool { return counts }) }
	}
	expires := time.Unix(1000, 0)
	op := func(state writv1.OperationState, at int64, who ...string) func(*Judge) {
		rec := &writv1.Operation{Id: "orders-1.1", Digest: digest, State: state, ExpiresAt: timestamppb.New(expires), EndedAt: timestamppb.New(time.Unix(at, 0))}
		for _, name := range who {
			rec.Approvals = append(rec.Approvals, &writv1.Approval{Approver: name})
		}
		return func(j *Judge) { j.Operation(rec) }
	}
	const executed, void = writv1.OperationState_OPERATION_STATE_EXECUTED, writv1.OperationState_OPERATION_STATE_VOID
	until := func(who string, end int64) func(*Judge) {
		return func(j *Judge) { j.Signs(who, digest, func(at time.Time) bool { return at.Before(time.Unix(end, 0)) }) }
	}
	noted := func(j *Judge) { j.noted(audit.Record{Action: "operation.execute", Target: "orders-1.1"}) }
	// planned is executed where the newest tenure is under the n-th token.
	planned := func(expected, n int64) func(*Judge) {
		return func(j *Judge) {
			rec := j.resource(r)
			rec.known, rec.token = true, tok(n)
			j.Promotion(&writv1.Promotion{Id: "orders-1.2", Group: string(r), ExpectedToken: uint64(tok(expected)), State: writv1.PromotionState_PROMOTION_STATE_FENCING})
		}
	}
	ends := func(by bool, epoch uint32) func(*Judge) {
		return func(j *Judge) {
			rec := j.resource(r)
			rec.tenure, rec.token = true, tok(1)
			j.end(rec, lease.EndForced)
			j.Moved(func(name lease.Resource) bool { return by && name == r }, epoch)
		}
	}
	fenced := func(j *Judge) {
		j.Promotion(&writv1.Promotion{Id: "orders-1.1", State: writv1.PromotionState_PROMOTION_STATE_FENCING})
	}
	rebuilt := func(j *Judge) { j.begin(1) }
	tenure := func(region string, n int64) func(*Judge) {
		return func(j *Judge) {
			rules := &writv1.GuardingRecord{Rules: []*writv1.GuardingRule{{Prefix: "o"}}}
			j.rules, j.was = rules, rules
			j.failover.regions[lease.Ref{Resource: r, Token: tok(n)}] = region
			rec := j.resource(r)
			rec.tenure = true
			j.granted(rec, tok(n), request{resource: r}, nil)
		}
	}
	admits := func(n int64) func(*Judge) {
		return func(j *Judge) {
			j.Admits(Admission{Guard: "g", Process: "g", Store: "g", Resource: r, Token: tok(n), Durable: tok(n), Seeded: true})
		}
	}
	promotes := func(region string, n int64) func(*Judge) { return func(j *Judge) { j.Promotes(region, r, tok(n)) } }
	agrees := func(to string) func(*Judge) {
		return func(j *Judge) {
			p := &writv1.Promotion{From: "eu", To: to, Mode: writv1.PromotionMode_PROMOTION_MODE_FAILOVER, ExpectedToken: 7}
			j.Agrees(p, &writv1.Operation{Document: []byte(`{"body":{"from":"eu","to":"us","mode":"failover","expected_token":"7"}}`)})
		}
	}
	two := []func(*Judge){signs("ann", true), signs("bob", true)}
	with := func(more ...func(*Judge)) []func(*Judge) { return append(two[:2:2], more...) }
	for name, test := range map[string]struct {
		does []func(*Judge)
		want string
	}{
		"two people":              {with(op(executed, 999, "ann", "bob"), op(executed, 999, "ann", "bob")), ""},
		"one person":              {with(op(executed, 999, "ann")), "S8"},
		"one person twice":        {with(op(executed, 999, "ann", "ann")), "S8"},
		"one who may not":         {with(signs("bob", false), op(executed, 999, "ann", "bob")), "S8"},
		"one who took it back":    {with(func(j *Judge) { j.Withdraws("bob", digest) }, op(executed, 999, "ann", "bob")), "S8"},
		"expired":                 {with(op(executed, 1000, "ann", "bob")), "S8"},
		"a key that expires":      {with(until("bob", 998), op(executed, 998, "ann", "bob")), "S8"},
		"a key that expires then": {with(until("bob", 998), op(executed, 997, "ann", "bob")), ""},
		"noted twice":             {[]func(*Judge){noted, noted}, "S8"},
		"noted, and lost":         {[]func(*Judge){noted, rebuilt, noted}, ""},
		"as it was planned":       {[]func(*Judge){planned(3, 3)}, ""},
		"planned for another":     {[]func(*Judge){planned(3, 4)}, "S6"},
		"ended by a promotion":    {[]func(*Judge){ends(true, 1)}, ""},
		"ended with its epoch":    {[]func(*Judge){ends(false, 2)}, ""},
		"ended by nothing":        {[]func(*Judge){ends(false, 1), ends(true, 1)}, "S8"},
		"executed and void":       {with(op(executed, 999, "ann", "bob"), op(void, 999)), "S8"},
		"executed, lost and void": {with(op(executed, 999, "ann", "bob"), rebuilt, op(void, 999)), ""},
		"executed and lost":       {with(op(executed, 999, "ann", "bob"), rebuilt, op(executed, 999, "ann", "bob")), "S8"},
		"fenced twice":            {[]func(*Judge){fenced, fenced}, "S8"},
		"as it was signed":        {[]func(*Judge){agrees("us")}, ""},
		"not as it was signed":    {[]func(*Judge){agrees("ap")}, "S8"},
		"in order":                {[]func(*Judge){tenure("eu", 1), admits(1), tenure("us", 2), admits(2)}, ""},
		"two regions":             {[]func(*Judge){tenure("eu", 1), tenure("us", 2), admits(1)}, "S6"},
		"one region":              {[]func(*Judge){tenure("eu", 1), tenure("eu", 2), admits(1)}, "S2"},
		"reaches late": {[]func(*Judge){tenure("eu", 1), tenure("us", 2), func(j *Judge) {
			j.Reaches(Admission{Guard: "g", Resource: r, Token: tok(1)}, false)
		}}, "S6"},
		"promotes":               {[]func(*Judge){tenure("eu", 1), promotes("eu", 1)}, ""},
		"promotes another":       {[]func(*Judge){tenure("eu", 1), promotes("us", 1)}, "S6"},
		"promotes before that":   {[]func(*Judge){tenure("eu", 1), promotes("us", 2)}, "S6"},
		"promotes what was over": {[]func(*Judge){tenure("eu", 1), tenure("us", 2), promotes("eu", 1)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var found []string
			j := New(func() time.Duration { return 0 }, func(invariant, _ string) { found = append(found, invariant) })
			for _, do := range test.does {
				do(j)
			}
			if got := strings.Join(found, " "); got != test.want {
				t.Errorf("broken: %q, want %q", got, test.want)
			}
		})
	}
}

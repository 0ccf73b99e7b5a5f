package lease_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// A guard that comes back after an outage acknowledges a hundred thousand raises in batches, in an order of its own.
func BenchmarkAcksAfterAnOutage(b *testing.B) {
	const open, batch = 100_000, 1000
	at := lease.Moment{Now: clock.Instant(time.Hour), Wall: time.UnixMilli(1e9)}
	order := rand.New(rand.NewPCG(1, 2)).Perm(open)
	caller := lease.Caller{Principal: "guard"}
	for range b.N {
		b.StopTimer()
		table := lease.NewTable(lease.TableConfig{GuardLease: time.Minute}, 1)
		table.Allow(open+10, 2*open)
		table.LoadGuards(at, []*writv1.GuardRecord{{
			Name: "g1", Principal: "guard", Covers: []string{"*"}, Store: "s", Session: "p.1", LeaseMs: 60_000, SlackMs: 1000,
		}}, &writv1.GuardingRecord{Version: 1, Rules: []*writv1.GuardingRule{{Isolation: writv1.Isolation_ISOLATION_CLOSE}}})
		acks := make([]*writv1.GuardAck, open)
		for i, n := range order {
			token, err := fence.NewToken(1, uint64(n+1))
			if err != nil {
				b.Fatal(err)
			}
			name := lease.Resource(fmt.Sprint("r", n))
			table.Load(at, lease.Record{Resource: name, Fencing: token}, nil)
			acks[i] = &writv1.GuardAck{Resource: string(name), Token: uint64(token), Proof: writv1.GuardProof_GUARD_PROOF_ACKED}
		}
		rand.New(rand.NewPCG(3, 4)).Shuffle(open, func(i, j int) { acks[i], acks[j] = acks[j], acks[i] })
		b.StartTimer()
		for i := 0; i < open; i += batch {
			req := &writv1.GuardRequest{Guard: "g1", Session: "p.1", Id: uint64(i + 1), Ask: &writv1.GuardRequest_Acks{
				Acks: &writv1.GuardAcks{Acks: acks[i : i+batch]},
			}}
			table.Step(at, lease.Request{ID: lease.CallID(i + 1), Intake: at.Now, Command: lease.GuardCall{Caller: caller, Request: req}})
		}
		b.StopTimer()
		e := table.Step(at, lease.Request{ID: 1 << 40, Intake: at.Now, Command: lease.ListGuards{}})
		if list := e.Replies[0].Value.(*writv1.ListGuardsResponse); list.Guards[0].Lag != 0 {
			b.Fatalf("%d raises are open still", list.Guards[0].Lag)
		}
		b.StartTimer()
	}
}

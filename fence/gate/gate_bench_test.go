package gate_test

import (
	"sync"
	"testing"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/gate"
)

// Admitting a write under an unchanged token and taking it off again, with two goroutines at one lock, as a shell has it.
// The clock read is not in it.
func BenchmarkAdmitDone(b *testing.B) {
	for _, c := range []struct {
		name       string
		goroutines int
	}{{"1", 1}, {"2", 2}} {
		b.Run(c.name, func(b *testing.B) {
			r := newRig(b, nil, gate.State{Store: "s", Clean: true})
			r.enrol(nil, 0)
			token := tok(7)
			if e := r.admitNow("orders/eu", token); e != nil {
				b.Fatal(e)
			}
			var mu sync.Mutex
			var wg sync.WaitGroup
			now := r.now
			b.ReportAllocs()
			b.ResetTimer()
			for range c.goroutines {
				wg.Go(func() {
					for range b.N / c.goroutines {
						mu.Lock()
						t, a, _ := r.gate.Admit(now, "orders/eu", token, true)
						mu.Unlock()
						if a != gate.Go {
							panic("not admitted")
						}
						mu.Lock()
						e := r.gate.Done(now, t, fence.Finished)
						mu.Unlock()
						if e != nil {
							panic("effects without a cause")
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

package pgfence_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/pgfence"
	"github.com/writ-io/writ/fence/pgfence/pgtest"
)

// appends is a run of writers that read a list, add to it in their own memory and write it back, which loses what others
// have written meanwhile unless only one of them can write at a time. A lock service grants a newer token to whoever
// asks, without regard for the present holder, who goes on as a zombie.
type appends struct {
	*fixture
	pool    *pgfence.Pool
	granted atomic.Int64
	next    atomic.Int64 // the next item

	mu sync.Mutex
	// acked and unknown are the items whose transactions were committed, or may have been. Guarded by mu.
	acked, unknown []int64
	refused        int // guarded by mu
}

func newAppends(t *testing.T) *appends {
	f := setUp(t)
	f.exec("CREATE TABLE lists (id int PRIMARY KEY, items bigint[] NOT NULL, tokens bigint[] NOT NULL)")
	f.exec("INSERT INTO lists VALUES (1, '{}', '{}')")
	f.install("lists")
	p, err := pgfence.NewPool(pgtest.Pool(t, f.dsn), pgfence.Config{Bump: pgfence.BumpOptions{
		DrainTimeout: 20 * time.Millisecond, CutTimeout: 5 * time.Second, CutRounds: 100,
	}})
	if err != nil {
		t.Fatal(err)
	}
	a := &appends{fixture: f, pool: p}
	a.granted.Store(int64(next))
	return a
}

// one appends an item; pause is called before the write and after it.
func (a *appends) one(token fence.Token, pause func()) error {
	item := a.next.Add(1)
	ctx := context.Background()
	wrote := false
	err := a.pool.Run(ctx, bearing(token), pgx.TxOptions{}, func(tx pgx.Tx) error {
		var items, tokens []int64
		if err := tx.QueryRow(ctx, "SELECT items, tokens FROM lists WHERE id = 1").Scan(&items, &tokens); err != nil {
			return err
		}
		pause()
		_, err := tx.Exec(ctx, "UPDATE lists SET items = $1, tokens = $2 WHERE id = 1", append(items, item), append(tokens, int64(token)))
		wrote = err == nil
		if wrote {
			pause()
		}
		return err
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		a.acked = append(a.acked, item)
	} else if wrote {
		a.unknown = append(a.unknown, item)
	} else {
		a.refused++
	}
	return err
}

// sleep lets the server do the waiting.
func (a *appends) sleep(seconds string) {
	if _, err := a.fixture.pool.Exec(context.Background(), "SELECT pg_sleep("+seconds+")"); err != nil {
		a.Error(err)
	}
}

// run has writers that are paused until somebody else has been granted a newer token, and one that never is.
func (a *appends) run(writers, items int) {
	var paused, going sync.WaitGroup
	done := make(chan struct{})
	going.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			token := fence.Token(a.granted.Add(1))
			for range 3 {
				if a.one(token, func() {}) != nil {
					break
				}
			}
		}
	})
	for w := range writers {
		paused.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(w)))
			token := fence.Token(a.granted.Add(1))
			for range items {
				pause := func() {
					if random.IntN(4) > 0 {
						return
					}
					// Whoever is not paused comes along; without a fence it may be waiting for this one's row lock.
					for looks := 0; looks < 100 && a.granted.Load() == int64(token); looks++ {
						a.sleep("0.001")
					}
					if random.IntN(2) == 0 {
						a.sleep("0.06") // too long for the bump's patience
					}
				}
				if err := a.one(token, pause); err != nil {
					token = fence.Token(a.granted.Add(1))
				}
			}
		})
	}
	paused.Wait()
	close(done)
	going.Wait()
}

// list returns the list, and the tokens that its items were written under.
func (a *appends) list() (items, tokens []int64) {
	a.Helper()
	// A last bump ends everything that is still under way.
	a.bump(fence.Token(a.granted.Add(1)))
	if err := a.fixture.pool.QueryRow(a.Context(), "SELECT items, tokens FROM lists WHERE id = 1").Scan(&items, &tokens); err != nil {
		a.Fatal(err)
	}
	return items, tokens
}

func (a *appends) lost(items []int64) (lost int) {
	for _, item := range a.acked {
		if !slices.Contains(items, item) {
			lost++
		}
	}
	return lost
}

// No acknowledged append is lost, no refused one is in the list, and the list is in the order of the tokens.
func TestListAppend(t *testing.T) {
	a := newAppends(t)
	a.run(3, 25)
	items, tokens := a.list()
	t.Logf("%d acked, %d unknown, %d refused, %d tokens", len(a.acked), len(a.unknown), a.refused, a.granted.Load()-int64(next))
	if lost := a.lost(items); lost > 0 {
		t.Errorf("%d of %d acknowledged appends are lost", lost, len(a.acked))
	}
	seen := make(map[int64]bool)
	for _, item := range items {
		if seen[item] {
			t.Errorf("item %d is there twice", item)
		}
		seen[item] = true
		if !slices.Contains(a.acked, item) && !slices.Contains(a.unknown, item) {
			t.Errorf("item %d is there, but was refused", item)
		}
	}
	if !slices.IsSorted(tokens) {
		t.Errorf("an older token wrote after a newer one: %v", tokens)
	}
	if len(a.acked) < 10 || a.refused == 0 {
		t.Errorf("%d appends were acknowledged and %d refused, which shows little", len(a.acked), a.refused)
	}
}

// The control: without the fence the same run loses appends, so the test above would notice.
func TestListAppendWithoutFenceLosesItems(t *testing.T) {
	a := newAppends(t)
	a.exec("ALTER TABLE lists DISABLE TRIGGER writ_fence")
	a.run(3, 25)
	items, tokens := a.list()
	if a.lost(items) == 0 && slices.IsSorted(tokens) {
		t.Errorf("nothing was lost of %d appends, and all are in order", len(a.acked))
	}
}

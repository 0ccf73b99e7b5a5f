package singleton_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/singleton"
)

// Three members divide the work over a real quorum; one dies, and what it held goes to the others, and nothing else moves.
func TestConsumeOverARealQuorum(t *testing.T) {
	const partitions, ttl = 30, 10 * time.Second
	endpoints := realQuorum(t)
	var mu sync.Mutex
	holders := make(map[int]string) // by partition, who began it last
	changed := make(chan struct{}, 1)
	started := 0
	var clients []*lease.Client
	dones := make(chan error, 3)
	ctx, leave := context.WithCancelCause(t.Context())
	defer leave(errLeave)
	for i := range 3 {
		name := fmt.Sprintf("m%d", i)
		client, err := lease.Dial(t.Context(), lease.Config{Endpoints: endpoints, Insecure: true, Instance: name, Region: "eu", DialTimeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = client.Close() }()
		clients = append(clients, client)
		s, err := singleton.New(client, singleton.Config{TTL: ttl})
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			dones <- s.Consume(ctx, "orders", partitions, func(ctx context.Context, p *singleton.Partition) error {
				mu.Lock()
				holders[p.Index()] = name
				started++
				mu.Unlock()
				select {
				case changed <- struct{}{}:
				default:
				}
				return consumeUntilRevoked(ctx, p)
			})
		}()
	}
	// await waits until each of n members works on its part.
	await := func(n int) {
		t.Helper()
		deadline := time.After(time.Minute)
		for {
			mu.Lock()
			counts := make(map[string]int)
			for _, name := range holders {
				counts[name]++
			}
			mu.Unlock()
			even := len(counts) == n
			for _, count := range counts {
				even = even && count == partitions/n
			}
			if even {
				return
			}
			select {
			case <-changed:
			case <-deadline:
				t.Fatalf("%d members did not come to rest: %v", n, counts)
			}
		}
	}
	await(3)
	mu.Lock()
	before := started
	mu.Unlock()
	died := time.Now()
	_ = clients[1].Close() // which releases nothing, as a crash does not
	await(2)
	t.Logf("%d partitions moved within %v of the crash, with a TTL of %v", partitions/3, time.Since(died), ttl)
	mu.Lock()
	if moved := started - before; moved != partitions/3 {
		t.Errorf("%d partitions moved, of which the dead member held %d", moved, partitions/3)
	}
	mu.Unlock()
	leave(errLeave)
	for range 3 {
		if err := <-dones; !errors.Is(err, errLeave) && !errors.Is(err, lease.ErrClosed) {
			t.Errorf("left with %v", err)
		}
	}
}

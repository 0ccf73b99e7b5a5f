package singleton_test

import (
	"context"
	"fmt"
	"log"
	"os/signal"
	"syscall"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/singleton"
)

// Every process of every region runs this; each partition is worked on in one of them at a time.
func ExampleSingleton_Consume() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cfg, err := lease.ConfigFromEnv()
	if err != nil {
		log.Fatal(err)
	}
	client, err := lease.Dial(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	s, err := singleton.New(client, singleton.Config{})
	if err != nil {
		log.Fatal(err)
	}
	log.Print(s.Consume(ctx, "orders/shards", 64, func(ctx context.Context, p *singleton.Partition) error {
		offset := string(p.CheckpointData()) // where the last holder stopped
		for {
			select {
			case <-p.Revoked(): // still ours: say where we stopped
				return p.Checkpoint(ctx, []byte(offset))
			case <-ctx.Done(): // not ours any more
				return nil
			default:
				offset = consumeSome(ctx, p.Index(), offset)
			}
		}
	}))
}

func consumeSome(_ context.Context, partition int, after string) string {
	return fmt.Sprintf("%d after %s", partition, after)
}

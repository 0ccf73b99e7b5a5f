package singleton_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/singleton"
)

// A program of which one instance works at a time, wherever its instances run. The environment says where the quorum is.
func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := singleton.Run(ctx, "billing/nightly", func(ctx context.Context) error {
		for ctx.Err() == nil {
			// work, with ctx
		}
		return nil
	})
	if err != nil {
		log.Print(err)
	}
}

// One client serves a whole program.
func ExampleSingleton_Run() {
	ctx := context.Background()
	client, err := lease.Dial(ctx, lease.Config{Endpoints: []string{"node-1.example:7411"}, Region: "eu"})
	if err != nil {
		log.Print(err)
		return
	}
	defer func() { _ = client.Close() }()
	s, err := singleton.New(client, singleton.Config{TTL: 5 * time.Second, Preferred: []string{"eu", "us"}})
	if err != nil {
		log.Print(err)
		return
	}
	err = s.Run(ctx, "orders/matcher", func(ctx context.Context) error {
		term, _ := singleton.FromContext(ctx)
		fmt.Println("matching under", term.Token, "from", string(term.Checkpoint))
		<-ctx.Done()
		return context.Cause(ctx)
	})
	if err != nil {
		log.Print(err)
	}
}

package lease_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/leasetest"
)

// startQuorum stands for a real one.
func startQuorum() (cfg lease.Config, stop func()) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	node := leasetest.NewNode(leasetest.NewQuorum(nil), "node-1", "eu")
	node.Serve(l)
	return lease.Config{Endpoints: []string{l.Addr().String()}, Insecure: true, Region: "eu"}, node.Stop
}

// One of several replicas runs the nightly job; the others wait.
func ExampleClient_Acquire() {
	cfg, stop := startQuorum() // lease.ConfigFromEnv() in earnest
	defer stop()
	ctx := context.Background()

	client, err := lease.Dial(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	hold, err := client.Acquire(ctx, "billing/nightly", lease.AcquireOptions{TTL: 10 * time.Second})
	if err != nil {
		log.Fatal(err)
	}

	work := func(ctx context.Context) error { return ctx.Err() }
	if err := work(hold.Context()); err != nil {
		log.Fatal(err)
	}
	fmt.Println("done under token", hold.Token())

	// The work has stopped: let the next one in.
	if err := hold.Release(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: done under token 1.1
}

func ExampleClient_TryAcquire() {
	cfg, stop := startQuorum()
	defer stop()
	ctx := context.Background()
	client, err := lease.Dial(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	if _, err := client.TryAcquire(ctx, "orders-db", lease.AcquireOptions{}); err != nil {
		log.Fatal(err)
	}
	_, err = client.TryAcquire(ctx, "orders-db", lease.AcquireOptions{})
	var held *lease.Error
	if errors.As(err, &held) && held.Reason == lease.ReasonHeld {
		fmt.Println("held in", held.Holder.Region, "under", held.Token)
	}
	// Output: held in eu under 1.1
}

// The context of a hold ends when the lease does, and says why.
func ExampleHold() {
	cfg, stop := startQuorum()
	defer stop()
	ctx := context.Background()
	client, err := lease.Dial(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	hold, err := client.Acquire(ctx, "orders-db", lease.AcquireOptions{})
	if err != nil {
		log.Fatal(err)
	}
	if err := hold.Checkpoint(ctx, []byte("offset 42")); err != nil {
		log.Fatal(err)
	}

	// An operator takes the lease away.
	if _, err := client.ForceRelease(ctx, "orders-db", lease.ForceReleaseOptions{Reason: "runbook 7"}); err != nil {
		log.Fatal(err)
	}
	if err := hold.Verify(ctx); errors.Is(err, lease.ErrLost) {
		<-hold.Done()
		fmt.Println(context.Cause(hold.Context()))
	}

	// Whoever is next goes on where this one stopped.
	next, err := client.Acquire(ctx, "orders-db", lease.AcquireOptions{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s under %s\n", next.CheckpointData(), next.Token())
	// Output:
	// lease: lost: orders-db under 1.1: the server ended it
	// offset 42 under 1.2
}

func ExampleClient_Watch() {
	cfg, stop := startQuorum()
	defer stop()
	ctx := context.Background()
	client, err := lease.Dial(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Acquire(ctx, "jobs/a", lease.AcquireOptions{}); err != nil {
		log.Fatal(err)
	}

	for event, err := range client.Watch(ctx, lease.WatchOptions{Prefix: "jobs/"}) {
		if err != nil {
			log.Fatal(err)
		}
		switch event.Kind {
		case lease.EventState:
			fmt.Println(event.Info.Resource, "is", event.Info.State, "under", event.Info.Token)
		case lease.EventSynced:
			fmt.Println("that is all for now")
			return // keep event.ResumeToken to go on later
		case lease.EventChanged, lease.EventRemoved, lease.EventResync, lease.EventProgress:
			// not before the end of the present state
		}
	}
	// Output:
	// jobs/a is held under 1.1
	// that is all for now
}

package guard_test

import (
	"context"
	"fmt"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard"
)

// A front admits each write before its first byte goes to the storage, and says how it ended.
func ExampleGuard_Admit() {
	g, err := guard.New(guard.Config{
		Name: "orders-eu-1", Region: "eu", Form: "example",
		Covers: []string{"orders", "billing/*"}, Store: "/var/lib/writ-guard/floors",
		Endpoints: []string{"node-eu:7411", "node-us:7411", "node-ap:7411"},
		CAFile:    "ca.pem", CertFile: "guard.pem", KeyFile: "guard-key.pem",
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	write := func(ctx context.Context, compact string) error {
		a, err := g.Admit(ctx, fence.Write{Resource: "orders", Writ: compact})
		if err != nil {
			return err
		}
		outcome := fence.Broken
		defer func() { a.Done(outcome) }()
		// Write to the storage here; break off when a.Cut() is closed. Only its complete answer says that it finished.
		outcome = fence.Finished
		return nil
	}
	if err := write(context.Background(), "eyJ..."); err != nil {
		fmt.Println(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := g.Close(ctx); err != nil {
		fmt.Println(err)
	}
}

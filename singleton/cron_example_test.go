package singleton_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/writ-io/writ/singleton"
	"github.com/writ-io/writ/singleton/singletontest"
)

// A process loses its lease in the middle of a slot. The slot runs again under the same id, by which the effect is recorded.
func ExampleSingleton_Cron() {
	t, stop := newExampleT() // in a test: its *testing.T
	defer stop()
	quorum := singletontest.New(t, singletontest.Config{}) // in a program: lease.Dial and singleton.New
	jobs := quorum.Process("eu-1", "eu").Singleton(singleton.Config{TTL: 3 * time.Second})

	ctx, cancel := context.WithCancel(t.Context())
	billed := make(map[string]int) // how often, by id
	err := jobs.Cron(ctx, "billing/nightly", "* * * * * *", func(ctx context.Context, tick singleton.Tick) error {
		again := tick.Attempt > 1
		fmt.Println("again:", again)
		if !again {
			billed[tick.ID] = 0
			quorum.Expire(tick.Job)
			<-ctx.Done() // as soon as the process hears of it
			return context.Cause(ctx)
		}
		billed[tick.ID]++
		cancel()
		return nil
	})
	fmt.Println("ended by the program:", errors.Is(err, context.Canceled))
	for _, times := range billed {
		fmt.Println("billed", times, "time")
	}
	// Output:
	// again: false
	// again: true
	// ended by the program: true
	// billed 1 time
}

// exampleT stands for a test, which an example has none of.
type exampleT struct {
	ctx      context.Context
	cleanups []func()
}

func newExampleT() (t *exampleT, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	t = &exampleT{ctx: ctx}
	return t, func() {
		cancel()
		for i := len(t.cleanups) - 1; i >= 0; i-- {
			t.cleanups[i]()
		}
	}
}

func (t *exampleT) Helper()                           {}
func (t *exampleT) Context() context.Context          { return t.ctx }
func (t *exampleT) Cleanup(f func())                  { t.cleanups = append(t.cleanups, f) }
func (t *exampleT) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

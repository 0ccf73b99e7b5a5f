package singleton_test

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/fencegrpc"
	"github.com/writ-io/writ/fence/pgfence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/singleton"
	"github.com/writ-io/writ/singleton/singletontest"
)

// The Go blocks of docs/SDK.md are excerpts of this file, which the compiler reads.
func TestTheCodeOfTheSDKPageCompiles(t *testing.T) {
	page, err := os.ReadFile("../docs/SDK.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("sdk_test.go")
	if err != nil {
		t.Fatal(err)
	}
	here := lines(string(source))
	blocks := 0
	for _, rest := range strings.Split(string(page), "```go\n")[1:] {
		block, _, closed := strings.Cut(rest, "```\n")
		if wanted := lines(block); !closed || !contains(here, wanted) {
			t.Errorf("this block of docs/SDK.md is not part of sdk_test.go:\n%s", block)
		}
		blocks++
	}
	if blocks < 8 {
		t.Errorf("docs/SDK.md has %d blocks of Go", blocks)
	}
}

// lines of a text, without indentation, and without those that are empty.
func lines(text string) []string {
	var all []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			all = append(all, strings.Join(strings.Fields(line), " "))
		}
	}
	return all
}

func contains(all, part []string) bool {
	for i := range all {
		if len(all)-i >= len(part) && slices.Equal(all[i:i+len(part)], part) {
			return true
		}
	}
	return false
}

// What the page leaves to the reader.
var (
	bill     func(context.Context) error
	billOnce func(context.Context, string) error
	offsetOf func([]byte) int
	encode   func(int) []byte
	handle   func(context.Context, ...int) error
	homes    []string
	work     func(*singleton.Singleton)
	invoices *pgfence.Pool
)

func pageRun(ctx context.Context) error {
	err := singleton.Run(ctx, "billing/nightly", func(ctx context.Context) error {
		return bill(ctx)
	})
	slog.Info("billing has ended", "error", err)
	return err
}

func pageConfig(ctx context.Context) error {
	cfg, err := lease.ConfigFromEnv()
	if err != nil {
		return err
	}
	client, err := lease.Dial(ctx, cfg)
	if err != nil {
		return err
	}
	defer client.Close()
	jobs, err := singleton.New(client, singleton.Config{
		TTL:       10 * time.Second,     // how long others wait for a process that died
		Eligible:  []string{"eu", "us"}, // where it may run
		Preferred: []string{"eu"},       // a process there takes over from one elsewhere, gracefully
		Logger:    slog.Default(),
	})
	if err != nil {
		return err
	}
	return jobs.Run(ctx, "billing/nightly", bill)
}

func pageSQL(ctx context.Context) error {
	term, _ := singleton.FromContext(ctx)
	err := invoices.Run(ctx, term.Write(), pgx.TxOptions{}, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO invoices …")
		return err
	})
	return err
}

func pageHTTP() *http.Client {
	storage := &http.Client{Transport: fence.Transport(nil)} // presents what the request's context carries
	return storage
}

func pageGRPC(address string) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient(address, grpc.WithUnaryInterceptor(fencegrpc.UnaryClient()), grpc.WithStreamInterceptor(fencegrpc.StreamClient()))
	return conn, err
}

func pageCheckpoint(ctx context.Context) error {
	term, _ := singleton.FromContext(ctx)
	from := offsetOf(term.Checkpoint) // what the holder before has stored
	for offset := from; ctx.Err() == nil; offset++ {
		if err := handle(ctx, offset); err != nil {
			return err
		}
		if err := singleton.Checkpoint(ctx, encode(offset)); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

func pageCron(ctx context.Context, jobs *singleton.Singleton) error {
	err := jobs.Cron(ctx, "billing/nightly", "30 2 * * *", func(ctx context.Context, tick singleton.Tick) error {
		return billOnce(ctx, tick.ID) // the same id for every attempt of one slot
	}, singleton.WithZone("Europe/Berlin"))
	return err
}

func pageConsume(ctx context.Context, jobs *singleton.Singleton) error {
	err := jobs.Consume(ctx, "orders", 16, func(ctx context.Context, p *singleton.Partition) error {
		for offset := offsetOf(p.CheckpointData()); ; offset++ {
			select {
			case <-p.Revoked(): // wanted elsewhere, and still ours: what is stored by now is what the next one begins with
				return nil
			default:
			}
			if err := handle(ctx, p.Index(), offset); err != nil {
				return err
			}
			if err := p.Checkpoint(ctx, encode(offset)); err != nil {
				return err
			}
		}
	}, singleton.Home(func(partition int) string { return homes[partition] }))
	return err
}

func pageTest(t singletontest.TB) {
	quorum := singletontest.New(t, singletontest.Config{})
	eu, us := quorum.Process("eu-1", "eu"), quorum.Process("us-1", "us")
	go work(eu.Singleton(singleton.Config{})) // your program, twice
	go work(us.Singleton(singleton.Config{}))
	quorum.Advance(time.Second)
	eu.Pause() // if it holds the lease, it goes on believing so
	quorum.Advance(time.Minute)
	eu.Resume() // and what it writes now has to be refused
}

// They are compiled, and called by nobody.
var _ = []any{pageRun, pageConfig, pageSQL, pageHTTP, pageGRPC, pageCheckpoint, pageCron, pageConsume, pageTest}

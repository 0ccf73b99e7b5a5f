package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"time"
)

type options struct {
	rounds   int
	duration time.Duration
	only     string
	side     string
	clients  int
	dir      string
	leases   int
	jobs     int
	base     string             // takes the place of etcd
	binaries map[string]*string // given ones, by name
}

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 3, "how many rounds of turns each side has; the median counts")
	flag.DurationVar(&o.duration, "duration", 500*time.Millisecond, "how long one turn of a throughput measurement lasts")
	flag.StringVar(&o.only, "only", "", "comma-separated parts to run: cycles, handoff, contenders, renew, raise, promotion, failover, scale, cron; empty: all")
	flag.StringVar(&o.side, "side", "", "measure only etcd or writ, in the cycles part: for a profile")
	flag.IntVar(&o.clients, "clients", 0, "how many clients to measure in the cycles part; 0: 1, 16, 64 and 256")
	flag.StringVar(&o.dir, "dir", "", "where data and binaries go; default: a temporary directory that is removed")
	flag.IntVar(&o.leases, "leases", 100_000, "leases in the scale part")
	flag.IntVar(&o.jobs, "jobs", 10_000, "jobs in the cron part")
	flag.StringVar(&o.base, "base", "", "a writ binary that takes etcd's place in the parts cycles, handoff and contenders: what a change is worth")
	o.binaries = map[string]*string{
		"writ": flag.String("writ", "", "a writ binary to measure; default: built from this module"),
		"etcd": flag.String("etcd", "", "an etcd binary to measure; default: built from the version in go.mod"),
	}
	profile := flag.String("cpuprofile", "", "write a profile of the client's side to this file")
	flag.Parse()
	if o.clients < 0 || o.side != "" && !slices.Contains(kinds[:], o.side) {
		fmt.Fprintf(os.Stderr, "bench: -side is etcd or writ, -clients 0 or more; got %q and %d\n", o.side, o.clients)
		os.Exit(2)
	}
	if *profile != "" {
		file, err := os.Create(*profile)
		if err == nil {
			err = pprof.StartCPUProfile(file)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		defer pprof.StopCPUProfile()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// kinds are the sides to measure.
func (o options) kinds() []string {
	if o.side != "" {
		return []string{o.side}
	}
	return kinds[:]
}

// row is one line of the table. Higher says whether more is better.
type row struct {
	work, peer, writ, ratio, floor string
}

func run(ctx context.Context, o options) error {
	if o.dir == "" {
		dir, err := os.MkdirTemp("", "writ-bench-")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		o.dir = dir
	}
	if err := build(ctx, o); err != nil {
		return err
	}
	var rows []row
	for _, part := range []struct {
		name string
		run  func(context.Context, options) ([]row, error)
	}{
		{"cycles", cycles}, {"handoff", handoffs}, {"contenders", contenders}, {"renew", renewals}, {"raise", raises}, {"promotion", promotions}, {"failover", failovers}, {"scale", scale}, {"cron", crons},
	} {
		if o.only != "" && !slices.Contains(strings.Split(o.only, ","), part.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "%s …\n", part.name)
		got, err := part.run(ctx, o)
		if err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		rows = append(rows, got...)
	}
	if o.base != "" {
		fmt.Println("| work | base | Writ | ratio | asked |")
	} else {
		fmt.Println("| work | etcd | Writ | ratio | asked |")
	}
	fmt.Println("|---|---|---|---|---|")
	for _, r := range rows {
		if o.base != "" {
			r.floor = "" // it is asked of the ratio to etcd
		}
		fmt.Printf("| %s | %s | %s | %s | %s |\n", r.work, r.peer, r.writ, r.ratio, r.floor)
	}
	return nil
}

func build(ctx context.Context, o options) error {
	for name, pkg := range map[string]string{"etcd": "go.etcd.io/etcd/server/v3", "writ": "github.com/writ-io/writ/cmd/writ"} {
		given := *o.binaries[name]
		if name == "etcd" {
			given = cmp.Or(o.base, given)
		}
		if given != "" {
			target, err := filepath.Abs(given)
			if err != nil {
				return err
			}
			if err := os.Symlink(target, filepath.Join(o.dir, name)); err != nil {
				return err
			}
			continue
		}
		cmd := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(o.dir, name), pkg)
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("build %s: %w", pkg, err)
		}
	}
	return nil
}

func median[T int64 | float64 | time.Duration](values []T) T {
	s := slices.Sorted(slices.Values(values))
	return s[len(s)/2]
}

package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-io/writ/cmd/writ/node/demo"
	"github.com/writ-io/writ/lease/clock"
)

// devDefaultPort is where the ports of a development quorum begin: 7411, 7412, 7413, 7421, …
const devDefaultPort = 7411

// devFlags are the flags of dev.
type devFlags struct {
	dir      string
	regions  []string
	basePort int
	insecure bool
	demo     bool
	// noPostgres leaves PostgreSQL out of the demo.
	noPostgres bool
	// given says which of them the user has set.
	given func(name string) bool
}

func devCommand(version string) *cobra.Command {
	var f devFlags
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a quorum of three regions in one process, for development",
		Long: `Run a quorum of three regions in one process, on loopback ports, with certificates of its own making.
It is for development: one process is one domain of failure.

The directory holds the certificates, a file of variables to source, and the data. Without --dir it is temporary and goes
with the process; with --dir it is used again at the next start.

With --demo it tells a story instead, on a real process that is really paused: how a lease runs out, how the paused
holder's late write is refused by the guard before the storage, and by a table of PostgreSQL if that is installed, and how
another region takes over. It ends with a table of what was promised and what was seen, and with 0 only if they agree.`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.given = cmd.Flags().Changed
			return runDev(cmd.Context(), cmd.OutOrStdout(), f, version)
		},
	}
	cmd.Flags().StringVar(&f.dir, "dir", "", "keep everything in this `directory`, for the next start (default: a temporary one)")
	cmd.Flags().StringSliceVar(&f.regions, "regions", []string{"eu", "us", "ap"}, "the `regions`, a node each")
	cmd.Flags().IntVar(&f.basePort, "base-port", devDefaultPort, "the first `port`: API, HTTP and peer of the first region; ten more for each next region; 0 takes free ones")
	cmd.Flags().BoolVar(&f.insecure, "insecure", false, "no TLS: everybody is who they say they are")
	cmd.Flags().BoolVar(&f.demo, "demo", false, "tell a story and exit")
	cmd.Flags().BoolVar(&f.noPostgres, "no-postgres", false, "with --demo: leave PostgreSQL out even if it is installed")
	cmd.AddCommand(demo.HolderCommand())
	return cmd
}

func runDev(ctx context.Context, out io.Writer, f devFlags, version string) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)
	dir, plan, remove, err := f.prepare()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	var database *demo.Database
	if f.demo && !f.noPostgres {
		database = demo.StartDatabase(ctx, dir)
		defer database.Close()
	}
	started := clock.System().Now()
	var quorum *devQuorum
	if err := breakable(ctx, signals, cancel, func() (err error) {
		quorum, err = startDev(ctx, dir, plan, version)
		return err
	}); err != nil {
		return err
	}
	took := clock.System().Now().Sub(started).Round(10 * time.Millisecond)
	if f.demo {
		err = breakable(ctx, signals, cancel, func() error { return tell(ctx, out, quorum, database, took) })
	} else if err = quorum.introduce(out, took); err == nil {
		select {
		case <-signals:
		case <-ctx.Done():
		case err = <-quorum.failed(ctx):
		}
	}
	stopped := make(chan error, 1)
	go func() { stopped <- quorum.stop(context.WithoutCancel(ctx)) }()
	if stopErr := awaitStop(stopped, signals); err == nil {
		err = stopErr
	}
	return err
}

// errInterrupted says that a signal came before the end.
var errInterrupted = errors.New("interrupted")

// breakable runs f, and breaks it off by cancel at a signal. It waits for f in every case.
func breakable(ctx context.Context, signals <-chan os.Signal, cancel context.CancelFunc, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		if err != nil && ctx.Err() != nil {
			return errInterrupted // whoever calls has heard of the signal first
		}
		return err
	case <-signals:
	case <-ctx.Done():
	}
	cancel()
	if err := <-done; err == nil {
		return nil
	}
	return errInterrupted
}

// prepare chooses the directory and what is to run in it. remove takes a temporary directory away.
func (f devFlags) prepare() (dir string, plan devPlan, remove func() error, err error) {
	remove = func() error { return nil }
	if f.noPostgres && !f.demo {
		return "", plan, remove, wrong("--no-postgres", "is given without --demo", "leave it out, or add --demo")
	}
	if f.demo && f.dir != "" {
		return "", plan, remove, wrong("--dir", "is given with --demo", "leave it out: the demo cleans up after itself")
	}
	if f.demo && len(f.regions) < 3 {
		return "", plan, remove, wrong("--regions", fmt.Sprintf("names %d for --demo", len(f.regions)), "name three, so that two can go on without the one that is stopped")
	}
	if f.demo && !f.given("base-port") {
		f.basePort = 0 // beside a quorum that runs already
	}
	if plan, err = planDev(f.regions, f.basePort, f.insecure); err != nil {
		return "", plan, remove, err
	}
	if f.dir == "" {
		dir, err = os.MkdirTemp("", "writ-dev-")
		return dir, plan, func() error { return os.RemoveAll(dir) }, err
	}
	if dir, err = filepath.Abs(f.dir); err != nil {
		return "", plan, remove, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", plan, remove, wrong("--dir", oneLine(err), "name a directory that can be made")
	}
	made, ok, err := loadPlan(dir)
	switch {
	case err != nil:
		return "", plan, remove, err
	case !ok:
		return dir, plan, remove, plan.save(dir)
	case f.given("regions") && !slices.Equal(made.Regions, f.regions):
		err = wrong("--regions", "are "+strings.Join(f.regions, ",")+", but "+dir+" was made with "+strings.Join(made.Regions, ","), "leave them out, or name another --dir")
	case f.basePort != 0 && f.given("base-port") && made.Ports[made.Regions[0]] != f.basePort:
		err = wrong("--base-port", fmt.Sprintf("is %d, but %s was made with %d", f.basePort, dir, made.Ports[made.Regions[0]]), "leave it out, or name another --dir")
	case f.given("insecure") && made.Insecure != f.insecure:
		err = wrong("--insecure", fmt.Sprintf("is %v, but %s was made otherwise", f.insecure, dir), "leave it out, or name another --dir")
	}
	return dir, made, remove, err
}

// introduce says where the quorum is and what to try.
func (q *devQuorum) introduce(out io.Writer, took time.Duration) error {
	env, err := writeEnv(q.dir, q.client)
	if err != nil {
		return err
	}
	guard, err := q.plan.writeGuard(q.dir)
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "A quorum of %d regions is ready after %v; %s decides at the moment.\n\n", len(q.configs), took, q.Coordinator())
	for _, c := range q.configs {
		fmt.Fprintf(&b, "  %-8s gRPC %-16s HTTP %s\n", c.Region, c.API.Listen, c.HTTP.Listen)
	}
	c := q.client
	curl, grpcurl, scheme := "", "-plaintext", "http"
	if !c.Insecure {
		curl = fmt.Sprintf("--cacert %s --cert %s --key %s ", shellQuote(c.CAFile), shellQuote(c.CertFile), shellQuote(c.KeyFile))
		grpcurl = fmt.Sprintf("-cacert %s -cert %s -key %s", shellQuote(c.CAFile), shellQuote(c.CertFile), shellQuote(c.KeyFile))
		scheme = "https"
	}
	fmt.Fprintf(&b, `
In another terminal:

  source %s

  writ lease acquire billing/nightly
  writ run billing/nightly --ttl 10s -- sh -c 'echo "I hold it"; sleep 30'
  writ lease watch
  writ quorum status

  writ guard protect %s --reason "to try it"
  writ-guard --config %s
  writ guard list

Two people approve promotions here, and you can be both: their keys are
  %s
  %s

  curl %s%s://%s/v1/cluster/status
  grpcurl %s %s list

The log is %s. Press Ctrl-C to stop`, shellQuote(env), devGuarded, shellQuote(guard), devKey(q.dir, devPeople[0]), devKey(q.dir, devPeople[1]), curl, scheme, q.configs[0].HTTP.Listen, grpcurl, q.configs[0].API.Listen, q.log.Name())
	if dirIsTemporary(q.dir) {
		b.WriteString(": everything goes with it")
	}
	b.WriteString(".\n")
	_, err = io.WriteString(out, b.String())
	return err
}

func dirIsTemporary(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, devPlanFile))
	return err != nil
}

// tell tells the story of the demo.
func tell(ctx context.Context, out io.Writer, q *devQuorum, database *demo.Database, took time.Duration) error {
	holder, errHolder := q.plan.client(q.dir, "holder")
	rival, errRival := q.plan.client(q.dir, "rival")
	guard, errGuard := q.plan.client(q.dir, devGuard)
	if err := errors.Join(errHolder, errRival, errGuard); err != nil {
		return err
	}
	return demo.Tell(ctx, demo.Stage{
		Out: out, Dir: q.dir, Quorum: q, Regions: q.plan.Regions, ReadyAfter: took, Database: database,
		Holder: environment(holder), Rival: rival, Guard: guard,
	})
}

package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region/agent"
)

// Config says where a group's server in this region is. DSN is mandatory, Region, DataDir, KeepDir and Sources for
// reinstating.
type Config struct {
	// DSN of the server, as pgx takes it.
	DSN string
	// Region of the agent.
	Region string
	// Sources are the servers of the other regions, by region: DSN with which pg_rewind, pg_basebackup and the replication
	// of this server connect to them.
	Sources map[string]string

	// DataDir is the server's data directory.
	DataDir string
	// KeepDir is where replaced data and lost log go; on the file system of DataDir, and outside of it.
	KeepDir string
	// BinDir holds pg_ctl, pg_rewind and the others; empty: they are in PATH.
	BinDir string
	// As stands before every program, such as [sudo, -u, postgres, --].
	As []string
	// Start and Stop are commands that start and stop the server, and wait for that; empty: pg_ctl.
	Start, Stop []string
	// StopOnDemote stops the server when it is demoted, besides making it read-only.
	StopOnDemote bool
	// Method of reinstating: auto (the default), rewind or reseed. Auto makes a new copy where rewinding does not work.
	Method string
	// Slot is the replication slot on the new primary; empty: none.
	Slot string

	// Fence is auto (the default), which raises the fence of package pgfence where there is one, required, or off.
	Fence string
	// FenceSchema is where it is; empty: pgfence's default.
	FenceSchema string
	// MaxConnections is what headroom counts against; 0: the server's max_connections.
	MaxConnections int
	// Grace is how long transactions may go on when draining begins: up to 1m. Default 2s; negative: not at all.
	Grace time.Duration
}

// Methods and fences.
const (
	Auto     = "auto"
	Rewind   = "rewind"
	Reseed   = "reseed"
	Required = "required"
	Off      = "off"
)

const (
	defaultGrace = 2 * time.Second
	maxGrace     = time.Minute
	// lookEvery is how often the server is asked whether something has come about.
	lookEvery = 50 * time.Millisecond
	// replayStill is how long replay may stand still before a promotion goes on.
	replayStill = 3 * time.Second
	// application is the name under which the agent connects.
	application = "writ-agent"
)

// Server acts on one server.
type Server struct{ cfg Config }

// New checks a configuration. Errors are INVALID [*lease.Error].
func New(cfg Config) (*Server, error) {
	cfg.Method = cmp.Or(cfg.Method, Auto)
	cfg.Fence = cmp.Or(cfg.Fence, Auto)
	if cfg.Grace == 0 {
		cfg.Grace = defaultGrace
	}
	if _, err := pgx.ParseConfig(cfg.DSN); cfg.DSN == "" || err != nil {
		return nil, lease.Invalid("dsn", "cannot be used", "write it like host=/var/run/postgresql user=postgres dbname=orders")
	}
	for region, dsn := range cfg.Sources {
		if _, err := pgx.ParseConfig(dsn); err != nil || dsn == "" {
			return nil, lease.Invalid("sources."+region, "cannot be used", "write it like host=db.us.example user=replicator dbname=orders")
		}
	}
	switch {
	case cfg.Method != Auto && cfg.Method != Rewind && cfg.Method != Reseed:
		return nil, lease.Invalid("method", fmt.Sprintf("is %.80q", cfg.Method), "use auto, rewind or reseed")
	case cfg.Fence != Auto && cfg.Fence != Required && cfg.Fence != Off:
		return nil, lease.Invalid("fence", fmt.Sprintf("is %.80q", cfg.Fence), "use auto, required or off")
	case cfg.Grace > maxGrace:
		return nil, lease.Invalid("grace", fmt.Sprintf("is %v", cfg.Grace), "use up to 1m")
	case cfg.MaxConnections < 0:
		return nil, lease.Invalid("max_connections", fmt.Sprintf("is %d", cfg.MaxConnections), "use 1 or more, or leave it out")
	case cfg.DataDir != "" && !filepath.IsAbs(cfg.DataDir):
		return nil, lease.Invalid("data_dir", fmt.Sprintf("%q is not absolute", cfg.DataDir), "write the whole path")
	case cfg.KeepDir != "" && (!filepath.IsAbs(cfg.KeepDir) || within(cfg.DataDir, cfg.KeepDir)):
		return nil, lease.Invalid("keep_dir", fmt.Sprintf("%q is not absolute, or inside of data_dir", cfg.KeepDir), "name a directory beside data_dir")
	case cfg.StopOnDemote && cfg.DataDir == "" && len(cfg.Stop) == 0:
		return nil, lease.Invalid("stop_on_demote", "needs to know how", "set stop or data_dir")
	}
	return &Server{cfg: cfg}, nil
}

// within reports whether a path is dir or below it.
func within(dir, path string) bool {
	if dir == "" {
		return false
	}
	relative, err := filepath.Rel(dir, path)
	return err == nil && relative != ".." && !strings.HasPrefix(relative, ".."+string(filepath.Separator))
}

// reinstatable answers what is missing for reinstating.
func (s *Server) reinstatable(source string) error {
	for _, f := range []struct{ field, value, fix string }{
		{"data_dir", s.cfg.DataDir, "name the server's data directory"},
		{"keep_dir", s.cfg.KeepDir, "name a directory for what is replaced: nothing is deleted"},
		{"sources." + source, s.cfg.Sources[source], "say how to connect to that region's server"},
	} {
		if f.value == "" {
			return lease.Invalid(f.field, "is missing", f.fix)
		}
	}
	return nil
}

// settings of a connection: plain connections see what other sessions see.
func connect(ctx context.Context, dsn string, plain bool) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	cfg.RuntimeParams["application_name"] = application
	if !plain {
		// The agent acts on servers that take no writes from others.
		cfg.RuntimeParams["default_transaction_read_only"] = "off"
	}
	return pgx.ConnectConfig(ctx, cfg)
}

// with runs do on a connection of its own.
func with(ctx context.Context, dsn string, plain bool, do func(*pgx.Conn) error) error {
	conn, err := connect(ctx, dsn, plain)
	if err != nil {
		return err
	}
	err = do(conn)
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	return errors.Join(err, conn.Close(closing))
}

// until asks again and again until the answer is yes. The error of ctx's end is joined with what was wrong last.
func until(ctx context.Context, what string, ask func() (bool, error)) error {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		yes, err := ask()
		if yes && err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%s: %w", what, context.Cause(ctx)), err)
		case <-ticker.C:
		}
	}
}

// hook is one of the built-in ones.
type hook func(ctx context.Context, task *writv1.Task, say *strings.Builder) (*writv1.Position, []string, error)

var _ agent.Hook = hook(nil)

// Run implements [agent.Hook].
func (h hook) Run(ctx context.Context, task *writv1.Task) (agent.Outcome, error) {
	var say strings.Builder
	position, entries, err := h(ctx, task, &say)
	return agent.Outcome{Output: say.String(), Position: position, Entries: entries}, err
}

// Idempotent implements [agent.Hook]: all of them begin by looking how far things are.
func (h hook) Idempotent() bool { return true }

// Hooks are the built-in hooks, by kind.
func (s *Server) Hooks() map[writv1.HookKind]agent.Hook {
	return map[writv1.HookKind]agent.Hook{
		writv1.HookKind_HOOK_KIND_DRAIN:     hook(s.drain),
		writv1.HookKind_HOOK_KIND_UNDRAIN:   hook(s.undrain),
		writv1.HookKind_HOOK_KIND_PROMOTE:   hook(s.promote),
		writv1.HookKind_HOOK_KIND_DEMOTE:    hook(s.demote),
		writv1.HookKind_HOOK_KIND_VERIFY:    hook(s.verify),
		writv1.HookKind_HOOK_KIND_REINSTATE: hook(s.reinstate),
	}
}

func tell(say *strings.Builder, format string, args ...any) {
	fmt.Fprintf(say, format+"\n", args...)
}

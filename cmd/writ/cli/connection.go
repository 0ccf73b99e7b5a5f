package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/writ-io/writ/lease"
)

// connection says how to reach the quorum: by flags, else by the environment.
type connection struct {
	endpoints     []string
	ca, cert, key string
	insecure      bool
	region        string
	instance      string
	timeout       time.Duration
	given         *pflag.FlagSet // the flags, to tell those that were given
}

func (c *connection) flags(f *pflag.FlagSet) {
	f.StringSliceVar(&c.endpoints, "endpoints", nil, "API addresses of nodes, `host:port`, separated by commas (WRIT_ENDPOINTS)")
	f.StringVar(&c.ca, "ca", "", "certificate authority to trust, PEM `file` (WRIT_CA)")
	f.StringVar(&c.cert, "cert", "", "own certificate, PEM `file` (WRIT_CERT)")
	f.StringVar(&c.key, "key", "", "its private key, PEM `file` (WRIT_KEY)")
	f.BoolVar(&c.insecure, "insecure", false, "talk plain text (WRIT_INSECURE)")
	f.StringVar(&c.region, "region", "", "the region that this process is in (WRIT_REGION)")
	f.StringVar(&c.instance, "instance", "", "which process of the principal this is (WRIT_INSTANCE; default cli-USER@HOST, but a name of its own for \"run\" and --hold)")
	f.DurationVar(&c.timeout, "timeout", 10*time.Second, "how long a request may take with all its attempts")
	c.given = f
}

// config merges flags over the environment. Its errors name flags.
func (c *connection) config() (lease.Config, error) {
	cfg, err := lease.ConfigFromEnv()
	if err != nil {
		return cfg, err
	}
	if len(c.endpoints) > 0 {
		cfg.Endpoints = c.endpoints
	}
	cfg.Region = cmp.Or(c.region, cfg.Region)
	cfg.Instance = c.instance
	c.security(&cfg)
	switch {
	case len(cfg.Endpoints) == 0:
		return cfg, lease.Invalid("--endpoints", "is not given", "name the API addresses of nodes, set WRIT_ENDPOINTS, or source the env file that writ dev writes")
	case c.timeout <= 0:
		return cfg, lease.Invalid("--timeout", fmt.Sprintf("is %v", c.timeout), "use a positive duration, such as 10s")
	case cfg.Insecure && cfg.CAFile+cfg.CertFile+cfg.KeyFile != "":
		return cfg, lease.Invalid("--insecure", "(or WRIT_INSECURE) excludes --ca, --cert and --key", "choose one")
	case (cfg.CertFile == "") != (cfg.KeyFile == ""):
		return cfg, lease.Invalid("--cert", "and --key belong together", "give both or neither")
	}
	cfg.CallTimeout, cfg.DialTimeout = c.timeout, c.timeout
	cfg.AttemptTimeout = min(c.timeout/2, 2*time.Second)
	return cfg, named(cfg.Validate())
}

// security merges what belongs together: a choice on the command line is not mixed with the other one of the environment.
func (c *connection) security(cfg *lease.Config) {
	files := c.ca + c.cert + c.key
	switch {
	case c.given != nil && c.given.Changed("insecure"):
		if cfg.Insecure = c.insecure; c.insecure {
			cfg.CAFile, cfg.CertFile, cfg.KeyFile = "", "", ""
		}
	case files != "":
		cfg.Insecure = false
	}
	cfg.CAFile, cfg.CertFile, cfg.KeyFile = cmp.Or(c.ca, cfg.CAFile), cmp.Or(c.cert, cfg.CertFile), cmp.Or(c.key, cfg.KeyFile)
}

// flagOf names the flags by the fields of [lease.Config].
var flagOf = map[string]string{
	"Endpoints": "--endpoints", "CAFile": "--ca", "CertFile": "--cert", "KeyFile": "--key", "Region": "--region", "Instance": "--instance",
	"AttemptTimeout": "--timeout",
}

// named makes an error about a field of the configuration one about its flag.
func named(err error) error {
	e := (*lease.Error)(nil)
	if !errors.As(err, &e) || flagOf[e.Field] == "" {
		return err
	}
	renamed := *e
	renamed.Field = flagOf[e.Field]
	renamed.Message = strings.NewReplacer("CAFile", "--ca", "KeyFile", "--key").Replace(e.Message)
	return &renamed
}

// stableInstance is the same for every command of one person on one machine, so that one command can release what another
// has acquired.
func (c *connection) stableInstance() string {
	if s := cmp.Or(c.instance, os.Getenv("WRIT_INSTANCE")); s != "" {
		return s
	}
	name, host := "unknown", "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	s := "cli-" + name + "@" + host
	return strings.ToValidUTF8(s[:min(len(s), lease.MaxInstanceBytes)], "")
}

// dial starts an SDK client, which keeps what it acquires. Its instance is its own unless one is given.
func (a *app) dial(ctx context.Context) (*lease.Client, error) {
	cfg, err := a.config()
	if err != nil {
		return nil, err
	}
	return a.dialWith(ctx, cfg)
}

func (a *app) dialWith(ctx context.Context, cfg lease.Config) (*lease.Client, error) {
	cfg.Logger = slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	client, err := lease.Dial(ctx, cfg)
	return client, named(err)
}

package cli

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

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
}

func (c *connection) flags(f *pflag.FlagSet) {
	f.StringSliceVar(&c.endpoints, "endpoints", nil, "API addresses of nodes, host:port (WRIT_ENDPOINTS)")
	f.StringVar(&c.ca, "ca", "", "certificate authority to trust, PEM `file` (WRIT_CA)")
	f.StringVar(&c.cert, "cert", "", "own certificate, PEM `file` (WRIT_CERT)")
	f.StringVar(&c.key, "key", "", "its private key, PEM `file` (WRIT_KEY)")
	f.BoolVar(&c.insecure, "insecure", false, "talk plain text (WRIT_INSECURE)")
	f.StringVar(&c.region, "region", "", "the region that this process is in (WRIT_REGION)")
	f.StringVar(&c.instance, "instance", "", "which process of the principal this is; default: cli-USER@HOST, for \"writ run\" and --hold one of its own")
	f.DurationVar(&c.timeout, "timeout", 10*time.Second, "how long a request may take")
}

// config merges flags over the environment.
func (c *connection) config() (lease.Config, error) {
	cfg, err := lease.ConfigFromEnv()
	if err != nil {
		return cfg, err
	}
	if len(c.endpoints) > 0 {
		cfg.Endpoints = c.endpoints
	}
	cfg.CAFile, cfg.CertFile, cfg.KeyFile = cmp.Or(c.ca, cfg.CAFile), cmp.Or(c.cert, cfg.CertFile), cmp.Or(c.key, cfg.KeyFile)
	cfg.Region = cmp.Or(c.region, cfg.Region)
	cfg.Instance = c.instance
	if c.insecure {
		cfg.Insecure = true
		cfg.CAFile, cfg.CertFile, cfg.KeyFile = c.ca, c.cert, c.key
	}
	if len(cfg.Endpoints) == 0 {
		return cfg, lease.Invalid("--endpoints", "is not given", "name the API addresses of nodes, set WRIT_ENDPOINTS, or source the env file that writ dev writes")
	}
	if c.timeout <= 0 {
		return cfg, lease.Invalid("--timeout", fmt.Sprintf("is %v", c.timeout), "use a positive duration, such as 10s")
	}
	cfg.CallTimeout, cfg.AttemptTimeout = c.timeout, min(c.timeout/2, 2*time.Second)
	return cfg, cfg.Validate()
}

// cliInstance is the same for every command of one person on one machine, so that one command can release what another
// has acquired.
func cliInstance() string {
	name, host := "unknown", "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	s := "cli-" + name + "@" + host
	return s[:min(len(s), lease.MaxInstanceBytes)]
}

func (c *connection) cliInstance() string { return cmp.Or(c.instance, cliInstance()) }

// client starts an SDK client, which keeps what it acquires.
func (a *app) client(ctx context.Context) (*lease.Client, error) {
	cfg, err := a.config()
	if err != nil {
		return nil, err
	}
	cfg.Logger = slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	return lease.Dial(ctx, cfg)
}

// each asks one node after the other until one answers or the time is over. The calls made with it are idempotent.
func (a *app) each(ctx context.Context, call func(context.Context, *grpc.ClientConn) error) error {
	cfg, err := a.config()
	if err != nil {
		return err
	}
	creds, err := transport(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	var failed error
	for round := 0; ; round++ {
		for _, endpoint := range cfg.Endpoints {
			err := one(ctx, endpoint, creds, a.attemptTimeout(round), call)
			if err == nil || !slices.Contains(elsewhere, lease.ReasonOf(err)) {
				return err
			}
			failed = fmt.Errorf("%s: %w", endpoint, err)
			if ctx.Err() != nil {
				return failed
			}
		}
		select {
		case <-ctx.Done():
			return failed
		case <-time.After(min(100*time.Millisecond<<min(round, 4), time.Second)):
		}
	}
}

// attemptTimeout leaves time for other nodes when one does not answer.
func (a *app) attemptTimeout(round int) time.Duration {
	return max(a.timeout/4, min(a.timeout, time.Second<<min(round, 4)))
}

// elsewhere are the reasons to ask another node.
var elsewhere = []lease.Reason{lease.ReasonNoQuorum, lease.ReasonNotCoordinator, lease.ReasonUnknownOutcome}

func one(ctx context.Context, endpoint string, creds credentials.TransportCredentials, limit time.Duration, call func(context.Context, *grpc.ClientConn) error) error {
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(creds), grpc.WithDisableServiceConfig())
	if err != nil {
		return lease.Invalid("--endpoints", fmt.Sprintf("holds %q: %v", endpoint, err), "use host:port")
	}
	defer func() { _ = conn.Close() }()
	inner, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err = lease.FromError(call(inner, conn))
	if err != nil && inner.Err() != nil && ctx.Err() == nil {
		return lease.Errorf(lease.ReasonUnknownOutcome, "no answer within %v", limit)
	}
	return err
}

func transport(cfg lease.Config) (credentials.TransportCredentials, error) {
	if cfg.Insecure {
		return insecure.NewCredentials(), nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS13}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, lease.Invalid("--ca", "cannot be read: "+err.Error(), "name a PEM file")
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, lease.Invalid("--ca", fmt.Sprintf("%s holds no certificate", cfg.CAFile), "name a PEM file")
		}
	}
	if cfg.CertFile != "" || cfg.KeyFile != "" {
		pair, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
		if err != nil {
			return nil, lease.Invalid("--cert", "and --key do not load: "+err.Error(), "name a PEM certificate and its key")
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return credentials.NewTLS(t), nil
}

// interrupted says that a person ended the command.
func interrupted(ctx context.Context, err error) bool {
	return ctx.Err() != nil && (errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "canceled"))
}

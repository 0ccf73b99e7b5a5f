package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/cmd/config"
	"github.com/writ-io/writ/lease"
)

// call is one request to one node.
type call func(context.Context, *grpc.ClientConn) error

// Reasons to ask another node.
var (
	// The node did not do it.
	undone = []lease.Reason{lease.ReasonNoQuorum, lease.ReasonNotCoordinator}
	// It may have done it, so only what may be done twice is asked again.
	uncertain = []lease.Reason{lease.ReasonUnknownOutcome}
)

// each asks one node after the other until one answers or the time is over. The call may be carried out twice.
func (a *app) each(ctx context.Context, do call) error {
	return a.tour(ctx, slices.Concat(undone, uncertain), do)
}

// once is each for calls that must not be carried out twice: it goes to a node that was just seen to answer, and moves on
// only if that node says that it did nothing.
func (a *app) once(ctx context.Context, do call) error {
	return a.tour(ctx, undone, func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := writv1.NewClusterServiceClient(conn).Status(ctx, &writv1.StatusRequest{})
		switch err = lease.FromError(err); {
		case err == nil:
			return do(ctx, conn)
		case lease.ExitCode(err) == lease.ExitUnavailable || lease.ReasonOf(err) == "":
			return &lease.Error{Reason: lease.ReasonNoQuorum, Message: trouble(err)}
		}
		return err // others would refuse it, too
	})
}

func (a *app) tour(ctx context.Context, elsewhere []lease.Reason, do call) error {
	cfg, err := a.config()
	if err != nil {
		return err
	}
	creds, err := transport(cfg)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	troubles := make([]string, len(cfg.Endpoints))
	for round := 0; ; round++ {
		var last error
		for i, endpoint := range cfg.Endpoints {
			last = ask(limited, endpoint, creds, a.attemptTimeout(round, len(cfg.Endpoints)), do)
			if last == nil || !slices.Contains(elsewhere, lease.ReasonOf(last)) {
				return last
			}
			over := limited.Err() != nil
			if !over || troubles[i] == "" { // an attempt that was cut short says less than the one before
				troubles[i] = endpoint + ": " + trouble(last)
			}
			if over {
				break
			}
		}
		select {
		case <-limited.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return &lease.Error{
				Reason: lease.ReasonOf(last), Message: fmt.Sprintf("no node could answer within %v: %s", a.timeout, strings.Join(slices.DeleteFunc(troubles, func(t string) bool { return t == "" }), "; ")),
			}
		case <-time.After(min(100*time.Millisecond<<min(round, 4), time.Second)):
		}
	}
}

// trouble is what is wrong with one node, without what everybody knows.
func trouble(err error) string {
	e := (*lease.Error)(nil)
	if !errors.As(err, &e) {
		return err.Error()
	}
	text := strings.TrimPrefix(e.Message, "connection error: desc = ")
	if unquoted := strings.Trim(text, `"`); unquoted != "" {
		text = unquoted
	}
	if e.Reason != lease.ReasonUnknownOutcome {
		text = string(e.Reason) + " " + text
	}
	return text
}

// attemptTimeout leaves time for the other nodes when one does not answer, and more in each round.
func (a *app) attemptTimeout(round, nodes int) time.Duration {
	if nodes == 1 {
		return a.timeout
	}
	return max(a.timeout/time.Duration(nodes+1), min(a.timeout, time.Second<<min(round, 4)))
}

// deadlineSlack is by how much a node may see a deadline earlier than we do: the timer of a busy machine.
const deadlineSlack = 100 * time.Millisecond

// ask asks one node. A node that does not answer in time may have done what it was asked.
func ask(ctx context.Context, endpoint string, creds credentials.TransportCredentials, limit time.Duration, do call) error {
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(creds), grpc.WithDisableServiceConfig())
	if err != nil {
		return lease.Invalid("--endpoints", fmt.Sprintf("holds %q: %v", endpoint, err), "use host:port")
	}
	defer func() { _ = conn.Close() }() // its only error is that it was closed before
	inner, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err = lease.FromError(do(inner, conn))
	if errors.Is(err, context.DeadlineExceeded) {
		// The node knows our deadline, and may tell of its end a moment before we see it.
		select {
		case <-inner.Done():
		case <-time.After(deadlineSlack):
		}
	}
	if err != nil && lease.ReasonOf(err) == "" && (inner.Err() != nil || errors.Is(err, context.DeadlineExceeded)) {
		return lease.Errorf(lease.ReasonUnknownOutcome, "no answer within %v", limit.Round(time.Millisecond))
	}
	return err
}

// transport is the security that a configuration asks for.
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
	if cfg.CertFile != "" {
		if err := config.CheckFile("--key", cfg.KeyFile, true); err != nil {
			var wrong *config.Error
			if errors.As(err, &wrong) {
				return nil, lease.Invalid(wrong.Field, wrong.Problem, wrong.Fix)
			}
			return nil, err
		}
		pair, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
		if err != nil {
			return nil, lease.Invalid("--cert", "and --key do not load: "+err.Error(), "name a PEM certificate and its key")
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return credentials.NewTLS(t), nil
}

//go:build linux

package cluster

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// Cluster is a quorum of three processes. Its methods are safe for concurrent use, but two faults of one node at once are
// the caller's contradiction.
type Cluster struct {
	config     Config
	client     pair
	identities map[string]pair
	processes  *Processes
	conns      [Size]*grpc.ClientConn

	mu       sync.Mutex
	nodes    [Size]node   // guarded by mu
	binaries [Size]string // guarded by mu; empty: [Config].Binary
}

type node struct {
	process *Process // nil while the node is down
	paused  bool
}

// Start starts three nodes and waits until all of them are ready, at most until ctx ends.
func Start(ctx context.Context, config Config) (*Cluster, error) {
	config = config.withDefaults()
	if config.Addresses == nil {
		var err error
		if config.Addresses, err = freeAddresses(); err != nil {
			return nil, err
		}
	}
	c := &Cluster{config: config, processes: NewProcesses()}
	err := c.writeConfigs()
	for i := 0; i < Size && err == nil; i++ {
		c.conns[i], err = c.Dial(i)
	}
	for i := 0; i < Size && err == nil; i++ {
		err = c.Restart(i)
	}
	if err == nil {
		err = c.AwaitReady(ctx)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("%w\n%s", err, c.Logs(20))
	}
	return c, nil
}

// Close kills every node and waits until they are gone.
func (c *Cluster) Close() {
	c.processes.Close()
	for _, conn := range c.conns {
		if conn != nil {
			_ = conn.Close()
		}
	}
}

// Restart starts node i, which is down.
func (c *Cluster) Restart(i int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nodes[i].process != nil {
		return fmt.Errorf("cluster: %s is running", Regions[i])
	}
	log, err := os.OpenFile(c.path(Regions[i]+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := c.config.Command(i, cmp.Or(c.binaries[i], c.config.Binary), "server", "--config", c.path(Regions[i]+".yaml"))
	cmd.Stdout, cmd.Stderr = log, log
	c.nodes[i].process, err = c.processes.Start(cmd)
	return err
}

// Kill ends node i by SIGKILL, which nothing can catch.
func (c *Cluster) Kill(i int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.check(i); err != nil {
		return err
	}
	process := c.nodes[i].process
	c.nodes[i] = node{}
	return process.Kill()
}

// Fell ends node i as Kill does, unless it has ended by itself, and tells whether it had: what was done to it may be a reason to.
func (c *Cluster) Fell(i int) (alone bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	process := c.nodes[i].process
	if process == nil {
		return false, fmt.Errorf("cluster: %s is down", Regions[i])
	}
	c.nodes[i] = node{}
	return process.fell()
}

// Ended is closed when the process of node i, which is up, has ended.
func (c *Cluster) Ended(i int) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nodes[i].process == nil {
		return nil
	}
	return c.nodes[i].process.Done()
}

// Stop asks node i to hand over and end, and waits until it has, at most until ctx ends.
func (c *Cluster) Stop(ctx context.Context, i int) error {
	process, err := c.dismiss(i)
	if err != nil {
		return err
	}
	select {
	case <-process.Done():
		return process.Err()
	case <-ctx.Done():
		return fmt.Errorf("cluster: stop %s: %w", Regions[i], context.Cause(ctx))
	}
}

// dismiss asks node i to end. It counts as down from then on.
func (c *Cluster) dismiss(i int) (*Process, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.check(i); err != nil {
		return nil, err
	}
	process := c.nodes[i].process
	c.nodes[i] = node{}
	return process, process.Signal(syscall.SIGTERM)
}

// Pause stops node i by SIGSTOP: it keeps its connections and its memory, and misses the time.
func (c *Cluster) Pause(i int) error { return c.signal(i, syscall.SIGSTOP, true) }

// Resume lets a paused node go on.
func (c *Cluster) Resume(i int) error { return c.signal(i, syscall.SIGCONT, false) }

func (c *Cluster) signal(i int, s syscall.Signal, pause bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.check(i); err != nil {
		return err
	}
	if c.nodes[i].paused == pause {
		return fmt.Errorf("cluster: %s: paused is %v already", Regions[i], pause)
	}
	c.nodes[i].paused = pause
	return c.nodes[i].process.Signal(s)
}

// check returns an error if node i is down, and says how if it went down by itself. The caller holds mu.
func (c *Cluster) check(i int) error {
	process := c.nodes[i].process
	if process == nil {
		return fmt.Errorf("cluster: %s is down", Regions[i])
	}
	select {
	case <-process.Done():
		return fmt.Errorf("cluster: %s ended by itself: %w", Regions[i], errors.Join(process.Err(), errors.New("see its log")))
	default:
		return nil
	}
}

// Check returns an error if a node has ended that nobody killed.
func (c *Cluster) Check() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all error
	for i := range c.nodes {
		if c.nodes[i].process != nil {
			all = errors.Join(all, c.check(i))
		}
	}
	return all
}

// Dial prepares a connection to node i that comes back soon after the node does.
func (c *Cluster) Dial(i int) (*grpc.ClientConn, error) {
	creds, err := c.credentials()
	if err != nil {
		return nil, err
	}
	return c.dial(i, creds, c.config.Dialer)
}

// DialBy is the same by another way than [Config].Dialer.
func (c *Cluster) DialBy(i int, dialer func(ctx context.Context, address string) (net.Conn, error)) (*grpc.ClientConn, error) {
	creds, err := c.credentials()
	if err != nil {
		return nil, err
	}
	return c.dial(i, creds, dialer)
}

// DialAs is the same as Dial with the certificate of one of [Config].Identities, and by another way; nil: that of gRPC.
func (c *Cluster) DialAs(i int, identity string, dialer func(ctx context.Context, address string) (net.Conn, error)) (*grpc.ClientConn, error) {
	creds, err := clientCredentials(c.identities[identity])
	if err != nil {
		return nil, err
	}
	return c.dial(i, creds, dialer)
}

func (c *Cluster) dial(i int, creds credentials.TransportCredentials, dialer func(context.Context, string) (net.Conn, error)) (*grpc.ClientConn, error) {
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(creds), grpc.WithDisableServiceConfig(), grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 300 * time.Millisecond},
			MinConnectTimeout: time.Second,
		}),
	}
	if dialer != nil {
		options = append(options, grpc.WithContextDialer(dialer))
	}
	return grpc.NewClient(c.Endpoint(i), options...)
}

func (c *Cluster) credentials() (credentials.TransportCredentials, error) {
	if !c.config.Secure {
		return insecure.NewCredentials(), nil
	}
	return clientCredentials(c.client)
}

// maxMetrics bounds the metrics of a node, in bytes.
const maxMetrics = 4 << 20

// Metrics answers the metrics of node i as text.
func (c *Cluster) Metrics(ctx context.Context, i int, dialer func(ctx context.Context, address string) (net.Conn, error)) ([]byte, error) {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
		return dialer(ctx, address)
	}}
	scheme := "http"
	if c.config.Secure {
		var err error
		if transport.TLSClientConfig, err = clientTLS(c.client); err != nil {
			return nil, err
		}
		scheme = "https"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+net.JoinHostPort(c.address(i), httpPort)+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("cluster: metrics of %s: status %s", Regions[i], response.Status)
	}
	return io.ReadAll(io.LimitReader(response.Body, maxMetrics))
}

// Client returns a configuration of the lease SDK for this cluster.
func (c *Cluster) Client() lease.Config { return c.clientWith(c.client) }

// ClientOf is the same for one of [Config].Identities.
func (c *Cluster) ClientOf(identity string) lease.Config { return c.clientWith(c.identities[identity]) }

func (c *Cluster) clientWith(files pair) lease.Config {
	config := lease.Config{
		Insecure: !c.config.Secure, CAFile: files.CA, CertFile: files.Cert, KeyFile: files.Key,
	}
	for i := range Size {
		config.Endpoints = append(config.Endpoints, c.Endpoint(i))
	}
	return config
}

// Status asks node i what it knows.
func (c *Cluster) Status(ctx context.Context, i int) (*writv1.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	return writv1.NewClusterServiceClient(c.conns[i]).Status(ctx, &writv1.StatusRequest{})
}

// Coordinator returns the node that decides, as far as a node that is ready knows.
func (c *Cluster) Coordinator(ctx context.Context) (int, bool) {
	for i := range Size {
		if !c.up(i) {
			continue
		}
		if status, err := c.Status(ctx, i); err == nil && status.GetReady() {
			if j := slices.Index(Regions[:], status.GetCoordinator()); j >= 0 && c.up(j) {
				return j, true
			}
		}
	}
	return 0, false
}

// up tells whether node i is running and not paused.
func (c *Cluster) up(i int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[i].process != nil && !c.nodes[i].paused
}

// AwaitReady waits until every node says that it can serve, and fails if one ends or ctx does.
func (c *Cluster) AwaitReady(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		missing := c.notReady(ctx)
		if missing == nil {
			return nil
		}
		if err := c.Check(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cluster: %w: %w", context.Cause(ctx), missing)
		case <-tick.C:
		}
	}
}

func (c *Cluster) notReady(ctx context.Context) error {
	for i := range Size {
		status, err := c.Status(ctx, i)
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", Regions[i], err)
		case !status.GetReady():
			return fmt.Errorf("%s: %s", Regions[i], status.GetNotReadyReason())
		}
	}
	return nil
}

// Logs returns the last lines of each node's log.
func (c *Cluster) Logs(lines int) string {
	var b strings.Builder
	for _, name := range Regions {
		data, err := os.ReadFile(c.path(name + ".log"))
		if err != nil {
			data = []byte(err.Error())
		}
		all := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
		fmt.Fprintf(&b, "--- %s\n%s\n", name, bytes.Join(all[max(0, len(all)-lines):], []byte("\n")))
	}
	return b.String()
}

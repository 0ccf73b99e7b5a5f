package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/etcd/server/v3/storage/wal"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// devSegmentBytes is the size of the pieces in which the stores of a development quorum take disk space.
const devSegmentBytes = 8 << 20

// devReadyTimeout bounds the start of a development quorum.
const devReadyTimeout = 30 * time.Second

// devQuorum is a quorum for development: a node per region, in this process.
type devQuorum struct {
	dir     string
	plan    devPlan
	version string
	logger  hclog.Logger
	log     *os.File
	configs []Config
	client  lease.Config

	mu    sync.Mutex
	nodes map[string]*Node // guarded by mu; by region, those that run
}

// startDev starts a quorum in dir, anew or with what is there, and waits until all its nodes serve.
func startDev(ctx context.Context, dir string, plan devPlan, version string) (started *devQuorum, err error) {
	for _, region := range plan.Regions {
		if err := portsFree(plan.Ports[region], 3); err != nil {
			return nil, wrong("--base-port", fmt.Sprintf("a port of region %s is in use: %v", region, err), "stop what uses it, or choose other ports")
		}
	}
	if wal.SegmentSizeBytes > devSegmentBytes { // of this whole process, which is a quorum for development
		wal.SegmentSizeBytes = devSegmentBytes
	}
	q := &devQuorum{dir: dir, plan: plan, version: version, nodes: map[string]*Node{}}
	if q.log, err = os.OpenFile(filepath.Join(dir, devLogFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
		return nil, err
	}
	q.logger = newLogger(Log{Level: "info"}, q.log)
	defer func() {
		if err != nil {
			err = errors.Join(err, q.stop(context.WithoutCancel(ctx)))
		}
	}()
	if q.configs, err = plan.layOut(dir); err != nil {
		return nil, err
	}
	if q.client, err = plan.client(dir, devUser); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, devReadyTimeout)
	defer cancel()
	if err := q.startAll(ctx); err != nil {
		return nil, err
	}
	return q, q.ready(ctx)
}

func (q *devQuorum) startAll(ctx context.Context) error {
	errs := make([]error, len(q.configs))
	var starting sync.WaitGroup
	for i, c := range q.configs {
		starting.Go(func() {
			n, err := Start(ctx, c, Options{Version: q.version, Logger: q.logger.Named(c.Name)})
			if err != nil {
				errs[i] = fmt.Errorf("region %s: %w", c.Name, err)
				return
			}
			q.mu.Lock()
			q.nodes[c.Name] = n
			q.mu.Unlock()
		})
	}
	starting.Wait()
	return errors.Join(errs...)
}

// running answers the nodes that run, in the order of regions.
func (q *devQuorum) running() []*Node {
	q.mu.Lock()
	defer q.mu.Unlock()
	var nodes []*Node
	for _, region := range q.plan.Regions {
		if n := q.nodes[region]; n != nil {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// ready waits until every node that runs says so.
func (q *devQuorum) ready(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		missing := ""
		for _, n := range q.running() {
			select {
			case <-n.Done():
				return fmt.Errorf("region %s: %w", n.config.Name, n.Err())
			default:
			}
			if reason := n.Status().NotReady; reason != "" {
				missing = fmt.Sprintf("region %s: %s", n.config.Name, reason)
			}
		}
		if missing == "" {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the quorum is not ready: %s (%w); its log is %s", missing, context.Cause(ctx), q.log.Name())
		}
	}
}

// Coordinator names the region that decides, as the nodes that run see it; empty while they do not agree.
func (q *devQuorum) Coordinator() string {
	seen := ""
	for i, n := range q.running() {
		s := n.Status()
		if s.NotReady != "" || (i > 0 && s.Coordinator != seen) {
			return ""
		}
		seen = s.Coordinator
	}
	return seen
}

// StopRegion stops the node of a region.
func (q *devQuorum) StopRegion(ctx context.Context, region string) error {
	q.mu.Lock()
	n := q.nodes[region]
	delete(q.nodes, region)
	q.mu.Unlock()
	if n == nil {
		return fmt.Errorf("no node runs in region %s", region)
	}
	return n.Stop(ctx)
}

// Protect has every grant under prefix proved by its guards, which refuse when they cannot reach the quorum. Doing so again
// changes nothing, so it is asked for until a node decides.
func (q *devQuorum) Protect(ctx context.Context, prefix string) error {
	ctx, cancel := context.WithTimeout(ctx, devReadyTimeout)
	defer cancel()
	cmd := lease.SetGuarding{
		Caller: lease.Caller{Principal: devTrust + "user/" + devUser}, Reason: "the demo",
		Rule: &writv1.GuardingRule{Prefix: prefix, Isolation: writv1.Isolation_ISOLATION_CLOSE},
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var err error
		for _, n := range q.running() {
			if _, err = n.service.SetGuarding(ctx, cmd); err == nil {
				return nil
			}
			switch lease.ReasonOf(err) {
			case lease.ReasonNotCoordinator, lease.ReasonRecovering, lease.ReasonNoQuorum, lease.ReasonUnknownOutcome:
			default:
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("protecting %s: %w", prefix, errors.Join(err, context.Cause(ctx)))
		}
	}
}

// failed answers why a node has ended by itself, once one has.
func (q *devQuorum) failed(ctx context.Context) <-chan error {
	failed := make(chan error, len(q.configs))
	for _, n := range q.running() {
		go func() { // ends with ctx
			select {
			case <-n.Done():
				if err := n.Err(); err != nil {
					failed <- fmt.Errorf("region %s: %w", n.config.Name, err)
				}
			case <-ctx.Done():
			}
		}()
	}
	return failed
}

// stop stops everything, the coordinator last and without looking for a successor among those that have stopped.
func (q *devQuorum) stop(ctx context.Context) error {
	coordinator := q.Coordinator()
	var all error
	var last *Node
	for _, n := range q.running() {
		if n.config.Name == coordinator {
			last = n
			continue
		}
		all = errors.Join(all, q.StopRegion(ctx, n.config.Name))
	}
	if last != nil {
		all = errors.Join(all, last.stopLast(ctx))
	}
	return errors.Join(all, q.log.Close())
}

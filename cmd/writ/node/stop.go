package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/quorum/etcd"
)

// Done is closed when the node has failed or begins to stop; Err then says why it failed. A failed node is to be stopped,
// and its process should exit.
func (n *Node) Done() <-chan struct{} { return n.ending }

// Err answers why the node has failed: its store or a listener ended by itself.
func (n *Node) Err() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.failed
}

// Status tells what the node knows of the quorum.
func (n *Node) Status() quorum.Status { return n.service.Status() }

// Reload reads the policy file and the certificates again. It answers why one of them was not adopted.
func (n *Node) Reload() error {
	var all error
	if n.policy != nil {
		_, err := n.policy.Reload()
		all = errors.Join(all, err)
	}
	if n.identity != nil {
		all = errors.Join(all, n.identity.Reload())
	}
	return all
}

// Stop stops the node in the reverse order of its start: it hands the coordinator over, lets requests under way finish,
// and ends service and store. Requests are cut off after ten seconds, or when ctx ends. It answers what went wrong, and
// Err for a node that had failed. It may be called again, and then answers the same.
func (n *Node) Stop(ctx context.Context) error {
	n.stopOnce.Do(func() {
		n.beginStop()
		n.handOver(ctx)
		n.stopErr = n.stop(ctx)
	})
	return n.stopErr
}

// stopLast is Stop for the last node of a quorum that ends: there is nobody to hand over to.
func (n *Node) stopLast(ctx context.Context) error {
	n.stopOnce.Do(func() {
		n.beginStop()
		n.stopErr = n.stop(ctx)
	})
	return n.stopErr
}

func (n *Node) stop(ctx context.Context) error {
	drain, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	if err := n.server.GracefulStop(drain); err != nil {
		n.logger.Warn("requests were cut off", "error", err)
	}
	n.serving.Wait()
	n.closeTracing(ctx)
	n.closeService(ctx)
	err := n.member.Close()
	if err == nil {
		err = n.rememberPosition()
	}
	n.logger.Info("node has stopped")
	return errors.Join(cmp.Or(n.Err(), err), n.dir.close())
}

// failedPatience is how long a service is waited for whose store has failed.
const failedPatience = 2 * time.Second

// closeService ends the service. Where etcd would have exited, the goroutine that met a failure stands still with the locks that
// it holds, and who asks the store for something then may wait for it for ever: that is left to the end of the process.
func (n *Node) closeService(ctx context.Context) {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		n.service.Close()
	}()
	select {
	case <-closed:
		return
	case <-n.member.Done():
	}
	if failed := (*etcd.FailedError)(nil); !errors.As(n.member.Err(), &failed) {
		<-closed
		return
	}
	waiting, cancel := context.WithTimeout(context.WithoutCancel(ctx), failedPatience)
	defer cancel()
	select {
	case <-closed:
	case <-waiting.Done():
		n.logger.Warn("the store has failed, and what still waits for it is left behind")
	}
}

func (n *Node) beginStop() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.failed == nil {
		close(n.ending)
	}
	n.stopped = true
}

// handOver moves the coordinator elsewhere, if it is here, so that the others need not notice its absence first.
func (n *Node) handOver(ctx context.Context) {
	if len(n.member.Members()) < 2 {
		return
	}
	to, err := n.service.MoveCoordinator(ctx, "")
	switch {
	case err == nil:
		n.logger.Info("the coordinator was handed over", "to", to)
	case !errors.Is(err, lease.ErrNotCoordinator):
		n.logger.Warn("the coordinator could not be handed over", "error", err)
	}
}

// rememberPosition notes in the witness how far the log is: exactly, since nothing is written to it any more. While the
// node runs, its witness lags behind by some seconds.
func (n *Node) rememberPosition() error {
	w, err := quorum.LoadWitness(n.dir.witness())
	if err != nil {
		return dirError(n.dir.path, err)
	}
	if w.Foreign != "" || w.Incarnation == "" || w.MemberID != n.member.ID() {
		return nil
	}
	disk, err := etcd.Inspect(n.dir.store())
	if err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	// What is not committed may yet be replaced by less: the end of the log is no bound.
	w.RaftTerm, w.AppliedIndex = max(w.RaftTerm, disk.Term), max(w.AppliedIndex, disk.Commit)
	return n.dir.saveWitness(w)
}

// follow notices when the store ends by itself.
func (n *Node) follow() {
	select {
	case <-n.member.Done():
		n.fail(cmp.Or(n.member.Err(), etcd.ErrStopped))
	case <-n.ending:
	}
}

// fail notes the first failure. A nil err is none, and neither is what happens while the node stops.
func (n *Node) fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err == nil || n.failed != nil || n.stopped {
		return
	}
	n.failed = err
	close(n.ending)
}

package quorum

import (
	"context"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// The deciding calls. Each is idempotent: a caller who does not know the outcome asks again, with the same request id where
// there is one. A node that does not decide answers lease.ErrNotCoordinator.

// Acquire asks for a resource and waits in the queue as long as the command says.
func (s *Service) Acquire(ctx context.Context, cmd lease.Acquire) (lease.AcquireOutcome, error) {
	v, err := s.do(ctx, cmd)
	if err != nil {
		return lease.AcquireOutcome{}, err
	}
	return OutcomeOf(lease.Reply{Value: v}), nil
}

// OutcomeOf reads the answer to an Acquire that succeeded.
func OutcomeOf(r lease.Reply) lease.AcquireOutcome {
	grant, _ := r.Value.(*lease.Grant)
	waiting, _ := r.Value.(*lease.Waiting)
	return lease.AcquireOutcome{Grant: grant, Waiting: waiting}
}

// CancelAcquire ends a wait and answers the token of the grant that it released, if one had been made.
func (s *Service) CancelAcquire(ctx context.Context, cmd lease.CancelAcquire) (fence.Token, error) {
	v, err := s.do(ctx, cmd)
	token, _ := v.(fence.Token)
	return token, err
}

// Renew extends leases; one outcome per command, in order. A command that cannot be carried out at all fails the call.
func (s *Service) Renew(ctx context.Context, cmds []lease.Renew) ([]lease.RenewOutcome, error) {
	outcomes := make([]lease.RenewOutcome, len(cmds))
	if len(cmds) == 1 {
		v, err := s.do(ctx, cmds[0])
		outcomes[0], _ = v.(lease.RenewOutcome)
		return outcomes, err
	}
	var (
		commands = make([]any, len(cmds))
		answers  = make(chan []lease.Reply, len(cmds))
	)
	for i, cmd := range cmds {
		commands[i] = cmd
	}
	first, err := s.Submit(commands, func(replies []lease.Reply) { answers <- replies })
	if err != nil {
		return outcomes, err
	}
	var failed error
	for left := len(cmds); left > 0; {
		select {
		case replies := <-answers:
			for _, r := range replies {
				outcomes[r.ID-first], _ = r.Value.(lease.RenewOutcome)
				if r.Err != nil {
					failed = r.Err
				}
			}
			left -= len(replies)
		case <-ctx.Done():
			for i := range cmds {
				s.Abandon(first + lease.CallID(i))
			}
			return outcomes, context.Cause(ctx)
		}
	}
	return outcomes, failed
}

// Release ends one grant.
func (s *Service) Release(ctx context.Context, cmd lease.Release) error {
	_, err := s.do(ctx, cmd)
	return err
}

// Checkpoint stores state for the next holder.
func (s *Service) Checkpoint(ctx context.Context, cmd lease.Checkpoint) error {
	_, err := s.do(ctx, cmd)
	return err
}

// ForceRelease takes a lease away and answers what it was.
func (s *Service) ForceRelease(ctx context.Context, cmd lease.ForceRelease) (lease.Info, error) {
	v, err := s.do(ctx, cmd)
	info, _ := v.(lease.Info)
	return info, err
}

// Inspect reads a resource with what only the coordinator knows.
func (s *Service) Inspect(ctx context.Context, cmd lease.Inspect) (lease.Info, error) {
	v, err := s.do(ctx, cmd)
	info, _ := v.(lease.Info)
	return info, err
}

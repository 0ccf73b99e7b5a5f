package guard

import (
	"context"
	"errors"
	"fmt"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/gate"
)

// ErrNotDrained means that Close gave up waiting for writes under way or for the quorum: the next process assumes that they may
// still reach the storage.
var ErrNotDrained = errors.New("guard: closed before everything had finished")

// Close stops admitting, waits until nothing is under way, says goodbye to the quorum, marks the floor store as clean and closes
// it. When ctx ends before that, writes that wait are refused, those under way are cut off, and the store is closed as it is;
// the error is then [ErrNotDrained]. Give ctx a deadline: a write that never ends would otherwise hold Close up for good. It
// joins everything that the guard has started. Closing again waits for the same end.
func (g *Guard) Close(ctx context.Context) error {
	g.once.Do(func() { g.result = g.close(ctx) })
	return g.result
}

func (g *Guard) close(ctx context.Context) error {
	g.tell(gate.Stop{})
	var result error
	select {
	case <-g.left:
	case <-ctx.Done():
		select {
		case <-g.left: // at the same moment
		default:
			s := g.Status()
			result = fmt.Errorf("%w: %d writes under way: %w", ErrNotDrained, s.InFlight, context.Cause(ctx))
		}
	}
	g.mu.Lock()
	g.over = true
	for ticket, p := range g.parked {
		delete(g.parked, ticket)
		p.Err = &fence.UnavailableError{Obstacle: fence.Stopping}
		close(p.done)
	}
	for ticket, a := range g.cuttable {
		delete(g.cuttable, ticket)
		close(a.cut)
	}
	g.mu.Unlock()
	g.cancel()
	g.tasks.Wait()
	g.disk.close()
	if g.cfg.Registerer != nil {
		g.cfg.Registerer.Unregister(g.metrics)
	}
	return errors.Join(result, g.disk.shut(result == nil))
}

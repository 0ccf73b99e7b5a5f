package etcd

import (
	"context"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/writ-io/writ/quorum"
)

// Watch delivers every change from revision from on. From 1 or below it delivers the whole history. etcd keeps what a
// slow deliver has not taken yet, in its database.
func (m *Member) Watch(ctx context.Context, from int64, deliver func(quorum.Change) bool) error {
	ctx, leave, err := m.gate.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	stream := m.server.Watchable().NewWatchStream()
	defer stream.Close()
	if _, err := stream.Watch(ctx, 0, []byte(quorum.Prefix), prefixEnd, max(from, 1)); err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	var pending assembler
	for {
		select {
		case response := <-stream.Chan():
			if response.CompactRevision != 0 {
				return fmt.Errorf("watch: %w: oldest kept revision is %d", quorum.ErrCompacted, response.CompactRevision)
			}
			for _, event := range response.Events {
				for _, change := range pending.add(event) {
					if ctx.Err() != nil {
						return context.Cause(ctx)
					}
					if !deliver(change) {
						return nil
					}
				}
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// assembler gathers the events of one revision into one change. Every commit writes the head key last, so its event
// completes the change, no matter how etcd cuts events into responses.
type assembler struct{ change quorum.Change }

// add takes the next event and answers the changes that are complete, at most two.
func (a *assembler) add(event *mvccpb.Event) (complete []quorum.Change) {
	revision := event.Kv.ModRevision
	if len(a.change.Entries) > 0 && revision != a.change.Revision {
		// Not one of our commits: it never wrote the head key.
		complete = append(complete, a.take())
	}
	a.change.Revision = revision
	a.change.Entries = append(a.change.Entries, entry(event))
	if string(event.Kv.Key) == quorum.KeyHead {
		complete = append(complete, a.take())
	}
	return complete
}

func (a *assembler) take() quorum.Change {
	change := a.change
	a.change = quorum.Change{}
	return change
}

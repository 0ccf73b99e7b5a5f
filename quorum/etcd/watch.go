package etcd

import (
	"bytes"
	"context"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/writ-io/writ/quorum"
)

// Watch delivers every change from revision from on. From 1 or below it delivers the whole history. etcd keeps what a
// slow deliver has not taken yet, in its database.
func (m *Member) Watch(ctx context.Context, from int64, deliver func(quorum.Change) bool) error {
	caller := ctx
	ctx, leave, err := m.gate.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	ended := func() error {
		if err := caller.Err(); err != nil {
			return err
		}
		return context.Cause(ctx) // the member stops
	}
	stream := m.server.Watchable().NewWatchStream()
	defer stream.Close()
	if _, err := stream.Watch(ctx, 0, []byte(logPrefix), prefixEnd, max(from, 1)); err != nil {
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
				changes, err := pending.add(event)
				if err != nil {
					return fmt.Errorf("watch: %w", err)
				}
				for _, change := range changes {
					if ctx.Err() != nil {
						return ended()
					}
					if !deliver(change) {
						return nil
					}
				}
			}
		case <-ctx.Done():
			return ended()
		}
	}
}

// assembler gathers the events of one revision into one change. A sole log entry is a change of its own; every other commit
// writes the head key last, so its event completes the change, no matter how etcd cuts events into responses. A revision
// that deletes from the log is a fold: it moves what watchers have been told already, and is delivered as an empty change,
// so that whoever waits for the store's revision sees it come.
type assembler struct {
	change quorum.Change
	fold   bool
}

// add takes the next event and answers the changes that are complete, at most two.
func (a *assembler) add(event *mvccpb.Event) (complete []quorum.Change, err error) {
	revision := event.Kv.ModRevision
	if a.change.Revision != 0 && revision != a.change.Revision {
		// Not one of our commits: it never wrote the head key.
		if change, fold := a.take(); !fold && len(change.Entries) > 0 {
			complete = append(complete, change)
		}
	}
	a.change.Revision = revision
	switch {
	case !bytes.HasPrefix(event.Kv.Key, []byte(logPrefix)):
		a.change.Entries = append(a.change.Entries, entry(event))
	case event.Type == mvccpb.Event_DELETE:
		a.fold = true
	default:
		err = unpack(event.Kv.Value, func(key string, value []byte) {
			// Cloned, so that one entry that is kept does not keep the whole commit.
			a.change.Entries = append(a.change.Entries, quorum.Entry{Key: key, Value: bytes.Clone(value), Revision: revision})
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", event.Kv.Key, err)
		}
	}
	if key := string(event.Kv.Key); key == quorum.KeyHead || isSole(key, event.Kv.Value) {
		change, fold := a.take()
		if fold {
			change.Entries = nil
		}
		complete = append(complete, change)
	}
	return complete, nil
}

func (a *assembler) take() (change quorum.Change, fold bool) {
	change, fold = a.change, a.fold
	*a = assembler{}
	return change, fold
}

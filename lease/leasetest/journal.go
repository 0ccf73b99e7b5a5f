package leasetest

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/grpc"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// Journal is what watches see: every change of a [State], and what came of them. It is safe for concurrent use.
type Journal struct {
	mu        sync.Mutex
	present   map[lease.Resource]lease.Info // guarded by mu
	entries   []journalEntry                // guarded by mu
	compacted int                           // guarded by mu; entries before this one are forgotten
	changed   chan struct{}                 // guarded by mu; closed and replaced at each change
}

type journalEntry struct {
	kind writv1.WatchResponse_Kind
	info lease.Info
}

// NewJournal makes an empty journal.
func NewJournal() *Journal {
	return &Journal{present: make(map[lease.Resource]lease.Info), changed: make(chan struct{})}
}

// Changed takes in what a resource is now.
func (j *Journal) Changed(info lease.Info) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.present[info.Resource] = info
	j.append(journalEntry{writv1.WatchResponse_KIND_CHANGED, info})
}

// Removed takes in that nothing is known of a resource any more.
func (j *Journal) Removed(name lease.Resource) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.present, name)
	j.append(journalEntry{writv1.WatchResponse_KIND_REMOVED, lease.Info{Resource: name, State: lease.Free}})
}

func (j *Journal) append(e journalEntry) {
	j.entries = append(j.entries, e)
	close(j.changed)
	j.changed = make(chan struct{})
}

// Compact forgets history, so that watches can only resume from the newest change.
func (j *Journal) Compact() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.compacted = len(j.entries)
}

// Len returns how many changes there have been.
func (j *Journal) Len() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.entries)
}

// serve sends the present state, then each change. Its resume token is the number of changes seen.
func (j *Journal) serve(r *writv1.WatchRequest, stream grpc.ServerStreamingServer[writv1.WatchResponse]) error {
	next, messages := j.begin(r)
	for {
		for _, m := range messages {
			if err := stream.Send(m); err != nil {
				return err
			}
		}
		var err error
		if next, messages, err = j.after(stream.Context(), next, r.GetPrefix()); err != nil {
			return err
		}
	}
}

// begin returns what a watch is told first, and how many changes it has seen then.
func (j *Journal) begin(r *writv1.WatchRequest) (next int, messages []*writv1.WatchResponse) {
	j.mu.Lock()
	defer j.mu.Unlock()
	next, err := strconv.Atoi(r.GetResumeToken())
	fresh := r.GetResumeToken() == ""
	switch {
	case fresh:
	case err != nil || next < j.compacted || next > len(j.entries):
		messages = append(messages, &writv1.WatchResponse{Kind: writv1.WatchResponse_KIND_RESYNC})
	default:
		return next, nil
	}
	var state []lease.Info
	for name, info := range j.present {
		if info.Token != 0 && strings.HasPrefix(string(name), r.GetPrefix()) {
			state = append(state, info)
		}
	}
	slices.SortFunc(state, func(a, b lease.Info) int { return cmp.Compare(a.Resource, b.Resource) })
	token := strconv.Itoa(len(j.entries))
	for i := range state {
		messages = append(messages, &writv1.WatchResponse{
			Kind: writv1.WatchResponse_KIND_STATE, Lease: lease.InfoToProto(&state[i]), ResumeToken: token,
		})
	}
	return len(j.entries), append(messages, &writv1.WatchResponse{Kind: writv1.WatchResponse_KIND_SYNCED, ResumeToken: token})
}

// after waits for changes under a prefix that come after the first ones.
func (j *Journal) after(ctx context.Context, next int, prefix string) (int, []*writv1.WatchResponse, error) {
	for {
		var messages []*writv1.WatchResponse
		j.mu.Lock()
		for _, e := range j.entries[next:] {
			next++
			if strings.HasPrefix(string(e.info.Resource), prefix) {
				messages = append(messages, &writv1.WatchResponse{
					Kind: e.kind, Lease: lease.InfoToProto(&e.info), ResumeToken: strconv.Itoa(next),
				})
			}
		}
		changed := j.changed
		j.mu.Unlock()
		if messages != nil {
			return next, messages, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return next, nil, ctx.Err()
		}
	}
}

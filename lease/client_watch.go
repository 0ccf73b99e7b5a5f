package lease

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// EventKind says what a watch has seen.
type EventKind uint8

// The kinds. A watch begins with the present state: EventState for each resource, then EventSynced.
const (
	// EventState: the present state of a resource, at the start.
	EventState EventKind = iota + 1
	// EventSynced: the present state has been sent whole.
	EventSynced
	// EventChanged: a resource changed; Info is what it is now.
	EventChanged
	// EventRemoved: the record of a resource that had been free for long was removed; Info names it.
	EventRemoved
	// EventResync: history cannot be continued. Forget what was seen; the present state follows, as at the start.
	EventResync
	// EventProgress: nothing happened for a while; ResumeToken is fresh.
	EventProgress
)

func (k EventKind) String() string {
	names := [...]string{"unknown", "state", "synced", "changed", "removed", "resync", "progress"}
	if int(k) >= len(names) {
		k = 0
	}
	return names[k]
}

var watchKinds = map[writv1.WatchResponse_Kind]EventKind{
	writv1.WatchResponse_KIND_STATE:    EventState,
	writv1.WatchResponse_KIND_SYNCED:   EventSynced,
	writv1.WatchResponse_KIND_CHANGED:  EventChanged,
	writv1.WatchResponse_KIND_REMOVED:  EventRemoved,
	writv1.WatchResponse_KIND_RESYNC:   EventResync,
	writv1.WatchResponse_KIND_PROGRESS: EventProgress,
}

// WatchEvent is one step of a watch. It tells what was committed; it never confers ownership.
type WatchEvent struct {
	Kind EventKind
	// Info is what is known of the resource, with EventState, EventChanged and EventRemoved.
	Info Info
	// ResumeToken continues after this event, in another process or on another node. It is empty until EventSynced,
	// because a state that was seen in part cannot be continued.
	ResumeToken string
}

// WatchOptions says what to watch. The zero value watches everything, from the present state on.
type WatchOptions struct {
	// Prefix restricts the watch to names that begin with it.
	Prefix string
	// ResumeToken continues after an event seen before. If that is not possible, the first event is EventResync.
	ResumeToken string
}

// clientWatchIdle is how long a stream may be silent, progress events included, before another node is asked.
const clientWatchIdle = 30 * time.Second

// Watch yields the changes of all resources under a prefix: a prefix of history in order, without gap or duplicate. It
// resumes by itself when a node fails, on another one; where history cannot be continued it yields EventResync and goes
// on. It ends with ctx, whose error is the last thing it yields, when the client is closed ([ErrClosed]), or with an error
// that no other node would answer better: INVALID, DENIED, UNAUTHENTICATED.
//
// A node cuts the stream of a consumer that lets too many events wait; it resumes where the consumer is.
func (c *Client) Watch(ctx context.Context, opts WatchOptions) iter.Seq2[WatchEvent, error] {
	return func(yield func(WatchEvent, error) bool) {
		w := &clientWatch{client: c, prefix: opts.Prefix, token: opts.ResumeToken, synced: opts.ResumeToken != ""}
		tour := c.nodes.tour()
		for {
			seen := w.events
			err := w.stream(ctx, tour.next(), yield)
			if w.stopped {
				return
			}
			if w.events > seen {
				tour.reset() // it worked for a while
			}
			if ctx.Err() == nil && c.ctx.Err() == nil && !clientRetryable(err) && ReasonOf(err) != ReasonLimit {
				yield(WatchEvent{}, err)
				return
			}
			if !c.pause(ctx, tour, err) {
				yield(WatchEvent{}, c.ended(ctx, "watch", tour, nil))
				return
			}
			if !w.restart(yield) {
				return
			}
		}
	}
}

type clientWatch struct {
	client  *Client
	prefix  string
	token   string // where to go on; empty while the state is incomplete
	synced  bool
	partial bool // some of the state was yielded, but not all
	stopped bool // the consumer has had enough
	events  int
}

// restart tells the consumer to forget a state that it has seen only in part.
func (w *clientWatch) restart(yield func(WatchEvent, error) bool) bool {
	if !w.partial {
		return true
	}
	w.partial = false
	return yield(WatchEvent{Kind: EventResync}, nil)
}

// stream watches at one node until that ends.
func (w *clientWatch) stream(ctx context.Context, e *dialEndpoint, yield func(WatchEvent, error) bool) error {
	nodes := w.client.nodes
	call, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.client.ctx, cancel)()
	idle := time.AfterFunc(clientWatchIdle, cancel)
	defer idle.Stop()
	stream, err := e.lease.Watch(call, &writv1.WatchRequest{Prefix: w.prefix, ResumeToken: w.token})
	for err == nil {
		var message *writv1.WatchResponse
		if message, err = stream.Recv(); err != nil {
			break
		}
		nodes.answered(e)
		idle.Stop() // a consumer may take its time
		if !w.deliver(message, yield) {
			w.stopped = true
			return nil
		}
		idle.Reset(clientWatchIdle)
	}
	err = watchError(err)
	if ctx.Err() == nil && w.client.ctx.Err() == nil && clientRetryable(err) {
		nodes.failed(e, err)
	}
	return err
}

// deliver yields what a message says. It returns false when the consumer has had enough.
func (w *clientWatch) deliver(message *writv1.WatchResponse, yield func(WatchEvent, error) bool) bool {
	event := WatchEvent{Kind: watchKinds[message.GetKind()]}
	switch event.Kind {
	case 0:
		return true // of a newer server
	case EventState:
		w.synced, w.partial, w.token = false, true, ""
	case EventResync:
		w.synced, w.partial, w.token = false, false, ""
	case EventSynced:
		w.synced, w.partial = true, false
	case EventChanged, EventRemoved, EventProgress:
	}
	if w.synced && message.GetResumeToken() != "" {
		w.token = message.GetResumeToken()
		event.ResumeToken = w.token
	}
	if message.GetLease() != nil {
		event.Info = InfoFromProto(message.GetLease())
	}
	w.events++
	return yield(event, nil)
}

// watchError is why a stream ended. One that the server ended without an error is to be resumed like any other.
func watchError(err error) error {
	if errors.Is(err, io.EOF) {
		return Errorf(ReasonUnknownOutcome, "the stream ended")
	}
	return FromError(err)
}

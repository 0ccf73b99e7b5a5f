package server

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
)

// watcher serves watches.
type watcher struct {
	quorum  Quorum
	metrics *metrics
	// patience is how long a client that does not read may keep the quorum waiting.
	patience time.Duration
}

const (
	// watchQueue is how many events may wait for a client to read them, besides what the connection holds.
	watchQueue = 256
	// watchPatience is the default.
	watchPatience = 30 * time.Second
	// keyWatching is in the headers of a watch that was admitted: headers alone can be those of a refusal.
	keyWatching = "writ-watching"
)

var errSlowWatch = errors.New("the client does not read")

// serve runs one watch: the quorum fills a bounded queue in one goroutine, and this one empties it into the stream.
func (w *watcher) serve(req *writv1.WatchRequest, stream grpc.ServerStreamingServer[writv1.WatchResponse]) error {
	w.metrics.watches.Inc()
	defer w.metrics.watches.Dec()
	// The client learns at once that it is watching; the first event may be long in coming.
	if err := stream.SendHeader(metadata.Pairs(keyWatching, "1")); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	events := make(chan quorum.WatchEvent, watchQueue)
	var watchErr error
	var producer sync.WaitGroup
	producer.Go(func() {
		defer close(events)
		watchErr = w.quorum.Watch(ctx, req.GetPrefix(), req.GetResumeToken(), func(ev quorum.WatchEvent) error {
			return w.enqueue(ctx, events, ev)
		})
	})
	var sendErr error
	for ev := range events {
		if sendErr == nil {
			sendErr = stream.Send(watchResponse(&ev))
		}
		if sendErr != nil {
			cancel() // and drain what is left
		}
	}
	producer.Wait()
	return w.ended(stream.Context(), watchErr, sendErr)
}

func (w *watcher) enqueue(ctx context.Context, events chan<- quorum.WatchEvent, ev quorum.WatchEvent) error {
	select {
	case events <- ev:
		return nil
	default:
	}
	timer := time.NewTimer(w.patience)
	defer timer.Stop()
	select {
	case events <- ev:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return errSlowWatch
	}
}

// ended says how the stream ends: without an error if the client wanted it to.
func (w *watcher) ended(ctx context.Context, watchErr, sendErr error) error {
	switch {
	case errors.Is(context.Cause(ctx), errDraining):
		e := lease.Errorf(lease.ReasonNoQuorum, "%v", errDraining)
		e.Fix = "watch another node, from the last resume token on"
		return e
	case errors.Is(ctx.Err(), context.Canceled):
		return nil
	case errors.Is(watchErr, errSlowWatch):
		e := lease.Errorf(lease.ReasonLimit, "%d events waited for %v to be read", watchQueue, w.patience)
		e.Fix = "read faster, and go on from the last resume token"
		return e
	case sendErr != nil:
		return sendErr
	}
	return watchErr
}

var watchKinds = map[quorum.WatchKind]writv1.WatchResponse_Kind{
	quorum.WatchState:    writv1.WatchResponse_KIND_STATE,
	quorum.WatchSynced:   writv1.WatchResponse_KIND_SYNCED,
	quorum.WatchChanged:  writv1.WatchResponse_KIND_CHANGED,
	quorum.WatchRemoved:  writv1.WatchResponse_KIND_REMOVED,
	quorum.WatchResync:   writv1.WatchResponse_KIND_RESYNC,
	quorum.WatchProgress: writv1.WatchResponse_KIND_PROGRESS,
}

func watchResponse(ev *quorum.WatchEvent) *writv1.WatchResponse {
	resp := &writv1.WatchResponse{Kind: watchKinds[ev.Kind], ResumeToken: ev.Resume}
	if ev.Lease.Resource != "" {
		resp.Lease = lease.InfoToProto(&ev.Lease)
	}
	return resp
}

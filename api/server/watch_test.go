package server

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
)

func TestWatchOverGRPC(t *testing.T) {
	q := newFake("a")
	kinds := []quorum.WatchKind{
		quorum.WatchResync, quorum.WatchState, quorum.WatchSynced, quorum.WatchChanged, quorum.WatchRemoved, quorum.WatchProgress,
	}
	q.onWatch = func(_ context.Context, prefix, resume string, deliver func(quorum.WatchEvent) error) error {
		if prefix != "a/" || resume != "x" {
			return lease.Invalid("prefix", prefix+resume, "")
		}
		for _, kind := range kinds {
			if err := deliver(quorum.WatchEvent{Kind: kind, Resume: "next"}); err != nil {
				return err
			}
		}
		return lease.Errorf(lease.ReasonNoQuorum, "lost")
	}
	n := start(t, newAuthority(t), q, nil)
	stream, err := n.dial(app).leases.Watch(testContext(t), &writv1.WatchRequest{Prefix: "a/", ResumeToken: "x"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range kinds {
		ev, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		// The kinds of the wire are in the order of this list, but for RESYNC.
		want := []writv1.WatchResponse_Kind{
			writv1.WatchResponse_KIND_RESYNC, writv1.WatchResponse_KIND_STATE, writv1.WatchResponse_KIND_SYNCED,
			writv1.WatchResponse_KIND_CHANGED, writv1.WatchResponse_KIND_REMOVED, writv1.WatchResponse_KIND_PROGRESS,
		}[i]
		if ev.GetKind() != want || ev.GetResumeToken() != "next" || ev.GetLease() != nil {
			t.Errorf("event %v, want %v", ev, want)
		}
	}
	_, err = stream.Recv()
	wantReason(t, err, lease.ReasonNoQuorum, "lost")
}

// Headers come before the first event, and a client that leaves ends the watch without an error.
func TestWatchIsLeft(t *testing.T) {
	q := newFake("a")
	ended := make(chan struct{})
	q.onWatch = func(ctx context.Context, _, _ string, _ func(quorum.WatchEvent) error) error {
		<-ctx.Done()
		close(ended)
		return errors.New("whatever a store says when it is interrupted")
	}
	n := start(t, newAuthority(t), q, nil)
	ctx, cancel := context.WithCancel(testContext(t))
	stream, err := n.dial(app).leases.Watch(ctx, &writv1.WatchRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if header, err := stream.Header(); err != nil || len(header.Get(keyWatching)) != 1 {
		t.Fatalf("headers %v, %v", header, err)
	}
	if n.metric("writ_server_watches", "") != 1 {
		t.Error("the watch is not counted")
	}
	cancel()
	<-ended
	eventually(t, "the watch ends", func() bool { return n.metric("writ_server_watches", "") == 0 })
	eventually(t, "the call counts as a success", func() bool {
		return n.handled("Watch", codes.OK) == 1
	})
	if text := n.log.String(); text != "" {
		t.Errorf("logged: %s", text)
	}
}

// handled counts finished calls.
func (n *node) handled(method string, code codes.Code) float64 {
	n.t.Helper()
	families, err := n.server.config.Registry.Gather()
	if err != nil {
		n.t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "grpc_server_handled_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["grpc_method"] == method && labels["grpc_code"] == code.String() && labels["grpc_service"] == "writ.v1.LeaseService" {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// slowStream is a client that does not read.
type slowStream struct {
	writv1.LeaseService_WatchServer
	ctx  context.Context
	read chan struct{}
	sent int
}

func (s *slowStream) Context() context.Context { return s.ctx }

func (s *slowStream) SendHeader(metadata.MD) error { return nil }

func (s *slowStream) Send(*writv1.WatchResponse) error {
	<-s.read
	s.sent++
	return nil
}

// A client that does not read costs a bounded queue, and keeps the quorum waiting for a bounded time.
func TestSlowWatchIsBounded(t *testing.T) {
	q := newFake("a")
	delivered := 0
	gaveUp := make(chan struct{})
	q.onWatch = func(_ context.Context, _, _ string, deliver func(quorum.WatchEvent) error) error {
		defer close(gaveUp)
		for {
			if err := deliver(quorum.WatchEvent{Kind: quorum.WatchProgress}); err != nil {
				return err
			}
			delivered++
		}
	}
	m, err := newMetrics(prometheusRegistry(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{quorum: q, metrics: m, patience: time.Millisecond}
	stream := &slowStream{ctx: testContext(t), read: make(chan struct{})}
	var wg sync.WaitGroup
	wg.Go(func() {
		err := w.serve(&writv1.WatchRequest{}, stream)
		wantReason(t, err, lease.ReasonLimit, "read faster")
	})
	<-gaveUp
	if delivered > watchQueue+1 {
		t.Errorf("%d events were taken, want at most %d", delivered, watchQueue+1)
	}
	close(stream.read) // what was taken is still sent
	wg.Wait()
	if stream.sent != delivered {
		t.Errorf("%d events were sent, want %d", stream.sent, delivered)
	}
}

func TestSnapshot(t *testing.T) {
	n := start(t, newAuthority(t), newFake("a"), nil)
	stream, err := n.dial(app).cluster.Snapshot(testContext(t), &writv1.SnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var sizes []int
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err, status.Code(err))
		}
		sizes = append(sizes, len(chunk.GetChunk()))
	}
	if len(sizes) != 2 || sizes[0] != snapshotChunkBytes || sizes[1] != 1 {
		t.Errorf("chunks of %v bytes", sizes)
	}
}

func TestWatchOverHTTP(t *testing.T) {
	ca, q := newAuthority(t), newFake("a")
	next, ended := make(chan quorum.WatchEvent), make(chan struct{})
	q.onWatch = func(ctx context.Context, prefix, resume string, deliver func(quorum.WatchEvent) error) error {
		defer close(ended)
		if prefix != "a/" || resume != "x" {
			return lease.Invalid("prefix", prefix+resume, "")
		}
		for {
			select {
			case ev := <-next:
				if ev.Resume == "fail" {
					return lease.Errorf(lease.ReasonNoQuorum, "lost")
				}
				if err := deliver(ev); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	n := start(t, ca, q, nil)
	req, err := http.NewRequestWithContext(testContext(t), http.MethodGet, n.url("/v1/leases:watch?prefix=a/&resumeToken=x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := n.web(ca.source(app)).Do(req) // returns before there is any event
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	lines := bufio.NewScanner(resp.Body)
	for _, name := range []string{"a/1", "a/2"} {
		next <- quorum.WatchEvent{Kind: quorum.WatchChanged, Resume: name, Lease: lease.Info{Resource: lease.Resource(name), State: lease.Free}}
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		var ev writv1.WatchResponse
		if err := protojson.Unmarshal(lines.Bytes(), &ev); err != nil {
			t.Fatal(err)
		}
		if ev.GetKind() != writv1.WatchResponse_KIND_CHANGED || ev.GetLease().GetResource() != name || ev.GetResumeToken() != name {
			t.Errorf("event %v", &ev)
		}
	}
	next <- quorum.WatchEvent{Resume: "fail"}
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), `{"error":{"code":"UNAVAILABLE","reason":"NO_QUORUM"`) || lines.Scan() {
		t.Errorf("the stream ends with %q", lines.Text())
	}
	<-ended
}

// A watch that is refused is an error, not an empty stream; one that its reader leaves ends in the quorum.
func TestWatchOverHTTPBeginsAndEnds(t *testing.T) {
	ca, q := newAuthority(t), newFake("a")
	ended := make(chan struct{})
	q.onWatch = func(ctx context.Context, _, _ string, _ func(quorum.WatchEvent) error) error {
		<-ctx.Done()
		close(ended)
		return ctx.Err()
	}
	n := start(t, ca, q, nil)
	status, body := n.call(n.web(ca.source(app)), http.MethodGet, "/v1/leases:watch?prefix="+strings.Repeat("x", 600), "")
	if status != http.StatusBadRequest || !strings.Contains(body, `"field":"prefix"`) {
		t.Errorf("%d %s", status, body)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.url("/v1/leases:watch"), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := n.web(ca.source(app)).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	<-ended
	_ = resp.Body.Close()
}

package tracingtest

import (
	"context"
	"encoding/hex"
	"net"
	"sync"
	"testing"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// Collector keeps the spans that it is sent.
type Collector struct {
	collectorpb.UnimplementedTraceServiceServer
	// Address is host:port.
	Address string
	// Stall, if it is not nil, holds up every answer until it is closed. It is set before anything is sent.
	Stall chan struct{}

	mu    sync.Mutex
	spans []Span // guarded by mu
	calls int    // guarded by mu
}

// Span is one that was sent, and by whom.
type Span struct {
	Trace, ID, Parent string // hexadecimal; an empty parent: none
	Service, Instance string
	*tracepb.Span
}

// New serves a collector until the test ends. Options are for its server, such as credentials.
func New(t testing.TB, options ...grpc.ServerOption) *Collector {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &Collector{Address: l.Addr().String()}
	server := grpc.NewServer(options...)
	collectorpb.RegisterTraceServiceServer(server, c)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(l) // it ends when it is stopped
	}()
	t.Cleanup(func() {
		server.Stop()
		<-ended
	})
	return c
}

// Export implements the collector's service.
func (c *Collector) Export(ctx context.Context, req *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	c.calls++
	for _, r := range req.GetResourceSpans() {
		said := make(map[string]string)
		for _, a := range r.GetResource().GetAttributes() {
			said[a.GetKey()] = a.GetValue().GetStringValue()
		}
		for _, s := range r.GetScopeSpans() {
			for _, span := range s.GetSpans() {
				c.spans = append(c.spans, Span{
					Trace: hex.EncodeToString(span.GetTraceId()), ID: hex.EncodeToString(span.GetSpanId()), Parent: hex.EncodeToString(span.GetParentSpanId()),
					Service: said["service.name"], Instance: said["service.instance.id"], Span: span,
				})
			}
		}
	}
	c.mu.Unlock()
	if c.Stall != nil {
		select {
		case <-c.Stall:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

// Calls answers how often something was sent.
func (c *Collector) Calls() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls
}

// Spans answers what was sent; a span that was sent again counts once.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := make(map[string]bool)
	var all []Span
	for _, s := range c.spans {
		if !seen[s.Trace+s.ID] {
			seen[s.Trace+s.ID] = true
			all = append(all, s)
		}
	}
	return all
}

// Attribute answers an attribute of a span; empty if it has none of that name.
func (s Span) Attribute(name string) string {
	for _, a := range s.GetAttributes() {
		if a.GetKey() == name {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}

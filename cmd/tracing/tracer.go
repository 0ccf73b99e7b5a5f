package tracing

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/credentials"

	"github.com/writ-io/writ/region"
)

const (
	// queueSize bounds the spans that wait for the collector.
	queueSize = 2048
	// exportTimeout bounds one attempt to send, and flushTimeout what an end waits for.
	exportTimeout = 10 * time.Second
	flushTimeout  = 2 * time.Second
	batchDelay    = time.Second
	// complaintEvery is how often a collector that does not answer is complained of.
	complaintEvery = time.Minute
	scope          = "github.com/writ-io/writ"
)

// Service says what sends the spans.
type Service struct {
	// Name is writ-node, writ-guard or writ-agent; Instance the name of this one.
	Name, Instance, Region, Version string
}

// Tracer sends spans. A nil one drops them.
type Tracer struct {
	processor sdktrace.SpanProcessor
	provider  *sdktrace.TracerProvider
	sampler   sdktrace.Sampler
	resource  *resource.Resource
}

// Open prepares to send spans; the collector need not be there. It answers nil if nothing is to be traced. Errors: a
// [*config.Error].
func Open(c Config, s Service, logger hclog.Logger) (*Tracer, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	if !c.On() {
		return nil, nil
	}
	options := []otlptracegrpc.Option{otlptracegrpc.WithTimeout(exportTimeout)}
	if c.Endpoint != "" {
		options = append(options, otlptracegrpc.WithEndpoint(c.Endpoint))
		if c.Insecure {
			options = append(options, otlptracegrpc.WithInsecure())
		} else {
			cfg, err := c.tls()
			if err != nil {
				return nil, err
			}
			options = append(options, otlptracegrpc.WithTLSCredentials(credentials.NewTLS(cfg)))
		}
	}
	exporter, err := otlptracegrpc.New(context.Background(), options...) // it connects later
	if err != nil {
		return nil, wrong("endpoint", err.Error(), "write host:port, such as collector:4317")
	}
	otel.SetErrorHandler(complaints(logger))
	t := &Tracer{
		processor: sdktrace.NewBatchSpanProcessor(exporter, sdktrace.WithMaxQueueSize(queueSize), sdktrace.WithBatchTimeout(batchDelay), sdktrace.WithExportTimeout(exportTimeout)),
		sampler:   newSampler(c.Sample),
		resource: resource.NewSchemaless(
			attribute.String("service.name", s.Name), attribute.String("service.instance.id", s.Instance),
			attribute.String("service.version", s.Version), attribute.String("cloud.region", s.Region)),
	}
	t.provider = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(t.processor), sdktrace.WithSampler(t.sampler), sdktrace.WithResource(t.resource))
	return t, nil
}

// complaints logs what exporters say, and not all the time.
func complaints(logger hclog.Logger) otel.ErrorHandlerFunc {
	var mu sync.Mutex
	var last time.Time
	return func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); logger != nil && now.Sub(last) >= complaintEvery {
			last = now
			logger.Warn("traces cannot be sent, and are dropped", "error", err)
		}
	}
}

// Close sends what waits, for a short time, and ends.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	err := t.provider.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return nil // a collector that does not answer is no failure of ours
	}
	return err
}

// Flush sends what waits.
func (t *Tracer) Flush(ctx context.Context) error { return t.provider.ForceFlush(ctx) }

// sampler takes a share of the traces that a caller has not left out.
type sampler struct{ share sdktrace.Sampler }

func newSampler(share float64) sdktrace.Sampler {
	if share == 0 {
		share = 1
	}
	return sampler{sdktrace.TraceIDRatioBased(share)}
}

// ShouldSample implements [sdktrace.Sampler].
func (s sampler) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	if parent := trace.SpanContextFromContext(p.ParentContext); parent.IsValid() && !parent.IsSampled() {
		return sdktrace.SamplingResult{Decision: sdktrace.Drop, Tracestate: parent.TraceState()}
	}
	return s.share.ShouldSample(p)
}

// Description implements [sdktrace.Sampler].
func (s sampler) Description() string { return "writ{" + s.share.Description() + "}" }

// Provider makes the spans of calls.
func (t *Tracer) Provider() trace.TracerProvider { return t.provider }

// Span is something that has happened.
type Span struct {
	// Traceparent is the context that it belongs to: its trace, and its parent.
	Traceparent string
	// ID is 16 hexadecimal digits; empty: drawn. If it is the parent's, the span is the first of its trace.
	ID         string
	Name       string
	Start, End time.Time
	Attributes map[string]string
	Events     []Event
	// Failure says how it failed; empty: it did not.
	Failure string
}

// Event is a moment within a span.
type Event struct {
	Name       string
	At         time.Time
	Attributes map[string]string
}

// Send queues a span. It never waits.
func (t *Tracer) Send(s Span) {
	if t == nil {
		return
	}
	of, parent, sampled, ok := region.TraceContext(s.Traceparent)
	if !ok || !sampled {
		return
	}
	traceID, err := trace.TraceIDFromHex(of)
	if err != nil || t.sampler.ShouldSample(sdktrace.SamplingParameters{ParentContext: context.Background(), TraceID: traceID}).Decision != sdktrace.RecordAndSample {
		return
	}
	spanID, err := trace.SpanIDFromHex(s.ID)
	if err != nil {
		_, _ = rand.Read(spanID[:]) // never fails
	}
	stub := tracetest.SpanStub{
		Name: s.Name, SpanKind: trace.SpanKindInternal, StartTime: s.Start, EndTime: s.End,
		SpanContext: trace.NewSpanContext(trace.SpanContextConfig{TraceID: traceID, SpanID: spanID, TraceFlags: trace.FlagsSampled}),
		Attributes:  attributes(s.Attributes), Resource: t.resource, InstrumentationScope: instrumentation.Scope{Name: scope},
	}
	if parentID, err := trace.SpanIDFromHex(parent); err == nil && parentID != spanID {
		stub.Parent = trace.NewSpanContext(trace.SpanContextConfig{TraceID: traceID, SpanID: parentID, TraceFlags: trace.FlagsSampled, Remote: true})
	}
	for _, e := range s.Events {
		stub.Events = append(stub.Events, sdktrace.Event{Name: e.Name, Time: e.At, Attributes: attributes(e.Attributes)})
	}
	if s.Failure != "" {
		stub.Status = sdktrace.Status{Code: codes.Error, Description: s.Failure}
	}
	t.processor.OnEnd(stub.Snapshot())
}

func attributes(all map[string]string) []attribute.KeyValue {
	out := make([]attribute.KeyValue, 0, len(all))
	for name, value := range all {
		if value != "" {
			out = append(out, attribute.String(name, value))
		}
	}
	slices.SortFunc(out, func(a, b attribute.KeyValue) int { return strings.Compare(string(a.Key), string(b.Key)) })
	return out
}

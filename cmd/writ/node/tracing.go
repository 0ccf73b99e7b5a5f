package node

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/stats"
	"google.golang.org/protobuf/proto"

	"github.com/writ-io/writ/api/server"
	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/cmd/tracing"
)

// followed are the calls that are spans: what people and programs ask for, and not what is asked all the time.
var followed = []string{
	writv1.RegionService_ApplyGroup_FullMethodName, writv1.RegionService_RemoveGroup_FullMethodName, writv1.RegionService_Plan_FullMethodName,
	writv1.RegionService_Execute_FullMethodName, writv1.RegionService_Abort_FullMethodName, writv1.RegionService_Resume_FullMethodName,
	writv1.RegionService_Acknowledge_FullMethodName, writv1.RegionService_Reinstate_FullMethodName, writv1.RegionService_AttestGuard_FullMethodName,
	writv1.RegionService_Approve_FullMethodName, writv1.RegionService_Withdraw_FullMethodName, writv1.RegionService_ExecuteOperation_FullMethodName,
	writv1.RegionService_ChangeApprovers_FullMethodName,
}

// followCalls is what the API needs to follow calls; without a tracer: nothing.
func followCalls(t *tracing.Tracer) server.Tracing {
	if t == nil {
		return server.Tracing{}
	}
	options := []otelgrpc.Option{
		otelgrpc.WithTracerProvider(t.Provider()), otelgrpc.WithPropagators(propagation.TraceContext{}),
		otelgrpc.WithFilter(func(info *stats.RPCTagInfo) bool { return slices.Contains(followed, info.FullMethodName) }),
	}
	return server.Tracing{
		Served: otelgrpc.NewServerHandler(options...), Passed: otelgrpc.NewClientHandler(options...),
		Span: func(ctx context.Context) string {
			span := trace.SpanContextFromContext(ctx)
			if !span.IsValid() {
				return ""
			}
			return fmt.Sprintf("00-%s-%s-%02x", span.TraceID(), span.SpanID(), byte(span.TraceFlags()))
		},
	}
}

// openTracing prepares to send traces, if it is configured.
func (n *Node) openTracing(version string) (err error) {
	c := n.config
	service := tracing.Service{Name: "writ-node", Instance: c.Name, Region: c.Region, Version: version}
	n.tracer, err = tracing.Open(c.Tracing, service, n.logger.Named("tracing"))
	if n.tracer != nil {
		n.promotions = tracing.NewPromotions(n.tracer, n.leads)
	}
	return err
}

// leads reports whether this node decides, as far as it knows.
func (n *Node) leads() bool {
	_, self, _ := n.service.Coordinator()
	return self
}

// tellPromotions is told records of promotions; nil if nothing is traced.
func (n *Node) tellPromotions() func(proto.Message) {
	if n.promotions == nil {
		return nil
	}
	return n.promotions.Tell
}

// startPromotions sends spans of promotions until the node ends. The service runs.
func (n *Node) startPromotions() {
	if n.promotions == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { n.promotions.Run(ctx) })
	n.endTracing = func() {
		cancel()
		running.Wait()
	}
}

// closeTracing sends what is left.
func (n *Node) closeTracing(ctx context.Context) {
	if n.endTracing != nil {
		n.endTracing()
	}
	if err := n.tracer.Close(ctx); err != nil {
		n.logger.Warn("traces may be lost", "error", err)
	}
}

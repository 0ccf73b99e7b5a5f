package server

import (
	"context"
	"errors"
	"runtime/debug"
	"time"

	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/auth"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// chain is what every call passes through, from the outside in: metrics, logging, conversion of errors, recovery of the
// stages themselves, authentication, limits, a deadline, validation, authorisation, recovery of the handler.
type chain struct {
	logger  hclog.Logger
	auth    *authenticator
	limiter *limiter
	access  Access
	checker *checker
	metrics *grpcprom.ServerMetrics
	// draining ends when the server begins to stop.
	draining context.Context
}

func (c *chain) unary() []grpc.UnaryServerInterceptor {
	return []grpc.UnaryServerInterceptor{
		c.metrics.UnaryServerInterceptor(),
		logUnary(c.logger),
		c.errorsUnary,
		recovery.UnaryServerInterceptor(recovery.WithRecoveryHandlerContext(c.recovered)),
		auth.UnaryServerInterceptor(c.auth.authenticate),
		c.admitUnary,
		recovery.UnaryServerInterceptor(recovery.WithRecoveryHandlerContext(c.recovered)),
	}
}

func (c *chain) stream() []grpc.StreamServerInterceptor {
	return []grpc.StreamServerInterceptor{
		c.metrics.StreamServerInterceptor(),
		logStream(c.logger),
		c.errorsStream,
		recovery.StreamServerInterceptor(recovery.WithRecoveryHandlerContext(c.recovered)),
		auth.StreamServerInterceptor(c.auth.authenticate),
		c.admitStream,
		recovery.StreamServerInterceptor(recovery.WithRecoveryHandlerContext(c.recovered)),
	}
}

// errorsUnary is where errors become what goes over the wire.
func (c *chain) errorsUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := handler(ctx, req)
	if err != nil {
		return nil, c.wireError(info.FullMethod, err)
	}
	return resp, nil
}

func (c *chain) errorsStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if err := handler(srv, stream); err != nil {
		return c.wireError(info.FullMethod, err)
	}
	return nil
}

func (c *chain) wireError(method string, err error) error {
	st := lease.ToStatus(err)
	if _, isStatus := status.FromError(err); !isStatus && lease.ReasonOf(err) == lease.ReasonInternal {
		// The caller does not see the text of a foreign error, so that it must be found here.
		c.logger.Error("internal error", "method", method, "error", err)
	}
	return st.Err()
}

// recovered answers for a handler that panicked.
func (c *chain) recovered(_ context.Context, p any) error {
	c.logger.Error("a handler panicked; the server goes on", "panic", p, "stack", string(debug.Stack()))
	return lease.Errorf(lease.ReasonInternal, "the request hit a defect of the server; its log tells more")
}

// admitUnary bounds, validates and authorises.
func (c *chain) admitUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	from := callerOf(ctx)
	done, err := c.limiter.enter(from)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := c.check(from, req); err != nil {
		return nil, err
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, defaultDeadline+waitOf(req))
		defer cancel()
	}
	return handler(ctx, req)
}

func (c *chain) check(from *caller, req any) error {
	if err := c.checker.check(req); err != nil {
		return err
	}
	return c.authorise(from, req)
}

// admitStream bounds streams, and validates and authorises what arrives on them. Streams end when the server stops.
func (c *chain) admitStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	switch info.FullMethod {
	case writv1.LeaseService_Pipeline_FullMethodName, writv1.FenceService_Guard_FullMethodName:
		return handler(srv, stream) // limits count what is asked on it, and it has an end of its own
	}
	from := callerOf(stream.Context())
	done, err := c.limiter.enter(from)
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	defer context.AfterFunc(c.draining, func() { cancel(errDraining) })()
	wrapped := &middleware.WrappedServerStream{ServerStream: stream, WrappedContext: ctx}
	return handler(srv, &checkedStream{WrappedServerStream: wrapped, chain: c, from: from})
}

// errDraining is why a stream or a wait ends that could have gone on.
var errDraining = errors.New("the node is shutting down")

type checkedStream struct {
	*middleware.WrappedServerStream
	chain *chain
	from  *caller
}

func (s *checkedStream) RecvMsg(m any) error {
	if err := s.WrappedServerStream.RecvMsg(m); err != nil {
		return err
	}
	return s.chain.check(s.from, m)
}

// waitOf is how long the request itself asks to wait.
func waitOf(req any) time.Duration {
	switch m := req.(type) {
	case *writv1.AcquireRequest:
		return clampWait(m.GetWait())
	case *writv1.GetPromotionRequest:
		return min(clampWait(m.GetWait()), maxLongPoll)
	case *writv1.AgentPollRequest:
		return min(clampWait(m.GetWait()), maxLongPoll)
	}
	return 0
}

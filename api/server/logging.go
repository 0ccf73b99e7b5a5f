package server

import (
	"context"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

// callClock times calls for the log.
var callClock = clock.Monotonic()

// tookKey holds how long a call took: the logging interceptor runs after it.
type tookKey struct{}

// hclogAdapter fits a logger to the logging interceptor.
func hclogAdapter(logger hclog.Logger) logging.Logger {
	return logging.LoggerFunc(func(_ context.Context, level logging.Level, msg string, fields ...any) {
		logger.Log(hclogLevel(level), msg, fields...)
	})
}

func hclogLevel(level logging.Level) hclog.Level {
	switch {
	case level < logging.LevelInfo:
		return hclog.Debug
	case level < logging.LevelWarn:
		return hclog.Info
	case level < logging.LevelError:
		return hclog.Warn
	}
	return hclog.Error
}

// levelOf keeps the log quiet: what callers bring about in normal work (a lease is held, nothing is there, they went
// away, they ask too often) is for debugging.
func levelOf(code codes.Code) logging.Level {
	switch code {
	case codes.OK, codes.Canceled, codes.NotFound, codes.Aborted, codes.AlreadyExists, codes.ResourceExhausted:
		return logging.LevelDebug
	case codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange, codes.DeadlineExceeded, codes.Unimplemented:
		return logging.LevelInfo
	case codes.Unauthenticated, codes.PermissionDenied, codes.Unavailable:
		return logging.LevelWarn
	case codes.Unknown, codes.Internal, codes.DataLoss:
	}
	return logging.LevelError
}

func loggingOptions() []logging.Option {
	return []logging.Option{
		logging.WithLogOnEvents(logging.FinishCall), // payloads are never logged
		logging.WithLevels(levelOf),
		logging.WithErrorFields(func(err error) logging.Fields { return logging.Fields{"reason", string(lease.ReasonOf(err))} }),
		logging.WithDurationField(func(time.Duration) logging.Fields { return nil }),
		logging.WithFieldsFromContext(func(ctx context.Context) logging.Fields {
			took, _ := ctx.Value(tookKey{}).(time.Duration)
			return logging.Fields{"took", took}
		}),
		logging.WithDisableLoggingFields(logging.SystemTag[0], logging.ComponentFieldKey, logging.MethodTypeFieldKey),
	}
}

// logUnary logs finished calls. The interceptor of the library formats a dozen fields whether they are written or not, some
// 5 µs a call; here it runs once the call is over, and only if its level is on.
func logUnary(logger hclog.Logger) grpc.UnaryServerInterceptor {
	write := logging.UnaryServerInterceptor(hclogAdapter(logger), loggingOptions()...)
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		start := callClock.Now()
		resp, err := handler(ctx, req)
		if logged(logger, err) {
			ctx = context.WithValue(ctx, tookKey{}, callClock.Now().Sub(start))
			_, _ = write(ctx, nil, info, func(context.Context, any) (any, error) { return nil, err })
		}
		return resp, err
	}
}

func logStream(logger hclog.Logger) grpc.StreamServerInterceptor {
	write := logging.StreamServerInterceptor(hclogAdapter(logger), loggingOptions()...)
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		start := callClock.Now()
		err := handler(srv, stream)
		if logged(logger, err) {
			ctx := context.WithValue(stream.Context(), tookKey{}, callClock.Now().Sub(start))
			over := &finishedStream{ServerStream: stream, ctx: ctx}
			_ = write(srv, over, info, func(any, grpc.ServerStream) error { return err })
		}
		return err
	}
}

// finishedStream gives the logging interceptor a context, and nothing to do.
type finishedStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *finishedStream) Context() context.Context { return s.ctx }

func logged(logger hclog.Logger, err error) bool {
	if err == nil {
		return logger.IsDebug()
	}
	switch hclogLevel(levelOf(status.Code(err))) {
	case hclog.Debug:
		return logger.IsDebug()
	case hclog.Info:
		return logger.IsInfo()
	case hclog.Warn:
		return logger.IsWarn()
	}
	return true
}

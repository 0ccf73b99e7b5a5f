package fencegrpc

import (
	"context"
	"errors"
	"net/http"
	"net/textproto"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/writ-io/writ/fence"
)

// Call is what a server knows of a call before its handler runs.
type Call struct {
	// Method is the full name, /package.Service/Method.
	Method string
	// Request is the message of a call that has one; nil for a stream.
	Request any
}

// ServerConfig says what is asked of calls.
type ServerConfig struct {
	// Admitter decides. Mandatory.
	Admitter fence.Admitter
	// Resource says which resource a call writes, or false if it is none of the guard's business: it reads, or writes
	// elsewhere. Mandatory.
	Resource func(context.Context, Call) (name string, guarded bool)
	// Trusted says of a call that its caller may present a bare token. Default: nobody may.
	Trusted func(context.Context, Call) bool
}

// Server has the interceptors of a server. It is safe for concurrent use.
type Server struct{ config ServerConfig }

// NewServer returns interceptors. The error names the field that is missing.
func NewServer(c ServerConfig) (*Server, error) {
	switch {
	case c.Admitter == nil:
		return nil, errors.New("fencegrpc: Admitter is missing: set the guard that decides")
	case c.Resource == nil:
		return nil, errors.New("fencegrpc: Resource is missing: say which resource a call writes")
	}
	return &Server{c}, nil
}

// Unary is a [grpc.UnaryServerInterceptor].
func (s *Server) Unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (reply any, err error) {
	handled, guardErr := s.run(ctx, Call{Method: info.FullMethod, Request: request}, func(ctx context.Context) {
		reply, err = handler(ctx, request)
	})
	if !handled {
		return nil, Status(guardErr).Err()
	}
	return reply, err
}

// Stream is a [grpc.StreamServerInterceptor]. A stream is admitted once, when it opens, and is under way until its handler
// returns.
func (s *Server) Stream(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	handled, guardErr := s.run(stream.Context(), Call{Method: info.FullMethod}, func(ctx context.Context) {
		err = handler(service, serverStream{stream, ctx})
	})
	if !handled {
		return Status(guardErr).Err()
	}
	return err
}

// serverStream has another context.
type serverStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s serverStream) Context() context.Context { return s.ctx }

// run calls handle if the call is admitted, or need not be. Whatever handle comes to is its own affair.
func (s *Server) run(ctx context.Context, call Call, handle func(context.Context)) (handled bool, err error) {
	name, guarded := s.config.Resource(ctx, call)
	if !guarded {
		handle(ctx)
		return true, nil
	}
	presented, err := fence.ParseHeader(headerOf(ctx), s.config.Trusted != nil && s.config.Trusted(ctx, call))
	if err != nil {
		return false, err
	}
	write := presented.Write(name)
	err = fence.Run(fence.NewContext(ctx, write), s.config.Admitter, write, func(ctx context.Context) error {
		handled = true
		handle(ctx)
		return nil
	})
	return handled, err
}

// headerOf gives metadata, whose names are in small letters, the form of HTTP's headers.
func headerOf(ctx context.Context) http.Header {
	md, _ := metadata.FromIncomingContext(ctx)
	header := make(http.Header, len(md))
	for name, values := range md {
		key := textproto.CanonicalMIMEHeaderKey(name)
		header[key] = append(header[key], values...)
	}
	return header
}

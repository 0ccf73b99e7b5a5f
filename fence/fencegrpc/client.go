package fencegrpc

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/writ-io/writ/fence"
)

// Keys of the metadata that carry a credential.
var (
	metadataWrit  = strings.ToLower(fence.HeaderWrit)
	metadataToken = strings.ToLower(fence.HeaderToken)
)

// UnaryClient returns an interceptor that presents, with each call, the writ or the token of its context: see
// [fence.NewContext]. Refusals match the errors of package fence.
func UnaryClient() grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		return Error(invoke(present(ctx), method, req, reply, conn, opts...))
	}
}

// StreamClient does for streams what [UnaryClient] does for calls. A refusal comes with the first message that is received.
func StreamClient() grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		stream, err := open(present(ctx), desc, conn, method, opts...)
		if err != nil {
			return nil, Error(err)
		}
		return clientStream{stream}, nil
	}
}

type clientStream struct{ grpc.ClientStream }

func (s clientStream) RecvMsg(m any) error { return Error(s.ClientStream.RecvMsg(m)) }

func (s clientStream) Header() (metadata.MD, error) {
	md, err := s.ClientStream.Header()
	return md, Error(err)
}

// present puts the credential of ctx into its metadata, unless there is one.
func present(ctx context.Context) context.Context {
	w, ok := fence.FromContext(ctx)
	if !ok {
		return ctx
	}
	if md, _ := metadata.FromOutgoingContext(ctx); len(md.Get(metadataWrit))+len(md.Get(metadataToken)) > 0 {
		return ctx
	}
	switch {
	case w.Writ != "":
		return metadata.AppendToOutgoingContext(ctx, metadataWrit, w.Writ)
	case !w.Token.IsZero():
		return metadata.AppendToOutgoingContext(ctx, metadataToken, w.Token.Decimal())
	}
	return ctx
}

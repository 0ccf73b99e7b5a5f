package server

import (
	"context"
	"testing"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/writ-io/writ/api/server/identity"
	"github.com/writ-io/writ/api/server/policy"
	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// chainOf joins the interceptors as a gRPC server does.
func chainOf(interceptors []grpc.UnaryServerInterceptor, handler grpc.UnaryHandler, info *grpc.UnaryServerInfo) grpc.UnaryHandler {
	for i := len(interceptors) - 1; i >= 0; i-- {
		next, interceptor := handler, interceptors[i]
		handler = func(ctx context.Context, req any) (any, error) { return interceptor(ctx, req, info, next) }
	}
	return handler
}

// BenchmarkChain is what every call pays besides gRPC itself and the quorum. A budget of a few microseconds keeps it out of
// the sums: a call over loopback with TLS takes more than fifty.
func BenchmarkChain(b *testing.B) {
	grants, err := policy.Parse([]byte(`grants: [{principals: ["spiffe://test/*"], prefix: "a/", verbs: [acquire, read]}]`))
	if err != nil {
		b.Fatal(err)
	}
	s, err := New(newFake("a"), Config{
		Insecure: true, Policy: grants, Limits: Limits{RatePerSecond: 1e9}, Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Info}),
	})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Stop()
	ctx := peer.NewContext(b.Context(), &peer.Peer{Addr: loopbackAddr{}, AuthInfo: identity.AuthInfo{Principal: app}})
	ctx = metadata.NewIncomingContext(ctx, metadata.MD{":authority": {"x"}, "content-type": {"application/grpc"}, "user-agent": {"grpc-go"}})
	ctx, cancel := context.WithTimeout(ctx, 1<<40)
	defer cancel()
	for _, c := range []struct {
		method string
		req    any
		err    error
	}{
		{"Acquire", acquireRequest("a/b"), nil},
		{"AcquireHeld", acquireRequest("a/b"), lease.ErrHeld},
		{"Renew", renewRequest("a/b"), nil},
		{"Release", &writv1.ReleaseRequest{Resource: "a/b", Token: 1}, nil},
		{"List", &writv1.ListRequest{Prefix: "a/"}, nil},
	} {
		b.Run(c.method, func(b *testing.B) {
			info := &grpc.UnaryServerInfo{FullMethod: "/writ.v1.LeaseService/" + c.method}
			call := chainOf(s.chain.unary(), func(context.Context, any) (any, error) { return nil, c.err }, info)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := call(ctx, c.req); (err != nil) != (c.err != nil) {
					b.Fatal(err)
				}
			}
		})
	}
}

type loopbackAddr struct{}

func (loopbackAddr) Network() string { return "tcp" }
func (loopbackAddr) String() string  { return "127.0.0.1:1" }

// BenchmarkAcquire is a whole call over loopback, answered by this node and by another one.
func BenchmarkAcquire(b *testing.B) {
	ca := newAuthority(b)
	unlimited := func(c *Config) { c.Limits.RatePerSecond = -1 }
	first, second := start(b, ca, newFake("a"), unlimited), start(b, ca, newFake("b"), unlimited)
	for _, n := range []*node{first, second} {
		n.quorum.setNodes(first.info, second.info)
		n.quorum.setCoordinator(first.info)
	}
	for name, via := range map[string]*node{"Direct": first, "Forwarded": second} {
		b.Run(name, func(b *testing.B) {
			c := via.dial(app)
			ctx, req := context.Background(), acquireRequest("a/b")
			if _, err := c.leases.Acquire(ctx, req); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.leases.Acquire(ctx, req); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"Parallel", func(b *testing.B) {
			c := via.dial(app)
			ctx, req := context.Background(), acquireRequest("a/b")
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := c.leases.Acquire(ctx, req); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

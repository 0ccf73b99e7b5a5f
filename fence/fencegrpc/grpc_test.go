package fencegrpc_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/fencegrpc"
	"github.com/writ-io/writ/fence/guard/external/externaltest"
)

const orders = "orders"

// service is a storage that speaks gRPC. What its calls do is up to the test.
type service struct {
	testgrpc.UnimplementedTestServiceServer
	unary  func(context.Context) error
	outer  context.Context // of the last unary call, as the server has made it
	stream func(testgrpc.TestService_FullDuplexCallServer) error
}

func (s *service) UnaryCall(ctx context.Context, _ *testgrpc.SimpleRequest) (*testgrpc.SimpleResponse, error) {
	if s.unary == nil {
		return &testgrpc.SimpleResponse{}, nil
	}
	return &testgrpc.SimpleResponse{}, s.unary(ctx)
}

func (s *service) EmptyCall(ctx context.Context, _ *testgrpc.Empty) (*testgrpc.Empty, error) {
	if _, ok := fence.AdmittedFromContext(ctx); ok {
		return nil, errors.New("a read counts as admitted")
	}
	return &testgrpc.Empty{}, nil
}

func (s *service) FullDuplexCall(stream testgrpc.TestService_FullDuplexCallServer) error {
	return s.stream(stream)
}

// keep is an interceptor before the guard's.
func (s *service) keep(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	s.outer = ctx
	return handler(ctx, request)
}

// start runs a real server behind the interceptors, and answers a client with those of clients. Everything but EmptyCall
// writes orders.
func start(t *testing.T, gate *externaltest.Gate, s *service, trusted bool) testgrpc.TestServiceClient {
	t.Helper()
	interceptors, err := fencegrpc.NewServer(fencegrpc.ServerConfig{
		Admitter: gate,
		Resource: func(_ context.Context, call fencegrpc.Call) (string, bool) {
			if unary := strings.HasSuffix(call.Method, "Call") && !strings.Contains(call.Method, "Duplex"); unary != (call.Request != nil) {
				t.Errorf("%s: request %v", call.Method, call.Request)
			}
			return orders, !strings.HasSuffix(call.Method, "/EmptyCall")
		},
		Trusted: func(context.Context, fencegrpc.Call) bool { return trusted },
	})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.ChainUnaryInterceptor(s.keep, interceptors.Unary), grpc.StreamInterceptor(interceptors.Stream))
	testgrpc.RegisterTestServiceServer(server, s)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(listener); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(func() { server.Stop(); serving.Wait() })
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(fencegrpc.UnaryClient()), grpc.WithStreamInterceptor(fencegrpc.StreamClient()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return testgrpc.NewTestServiceClient(conn)
}

func holding(t *testing.T, gate *externaltest.Gate, sequence uint64) context.Context {
	t.Helper()
	return fence.NewContext(t.Context(), fence.Write{Resource: orders, Writ: gate.Sign(t, orders, externaltest.Token(t, sequence))})
}

func TestUnaryIsAdmitted(t *testing.T) {
	gate := externaltest.New(t, orders)
	failure := status.Error(codes.AlreadyExists, "there is one")
	client := start(t, gate, &service{unary: func(ctx context.Context) error {
		if a, _ := fence.AdmittedFromContext(ctx); a != (fence.Admitted{Resource: orders, Token: externaltest.Token(t, 5)}) || gate.Open() != 1 {
			t.Errorf("admitted %+v, %d under way", a, gate.Open())
		}
		return failure
	}}, false)
	if _, err := client.UnaryCall(holding(t, gate, 5), &testgrpc.SimpleRequest{}); status.Code(err) != codes.AlreadyExists {
		t.Errorf("error %v, want that of the handler", err)
	}
	if ended := gate.AwaitEnded(t, 1); !slices.Equal(ended, []fence.Outcome{fence.Finished}) {
		t.Errorf("the gate was told %v; the storage has answered", ended)
	}
	if _, err := client.EmptyCall(t.Context(), &testgrpc.Empty{}); err != nil {
		t.Errorf("a read: %v", err)
	}
}

func TestStaleCallsAreRefused(t *testing.T) {
	gate := externaltest.New(t, orders)
	gate.Raise(orders, externaltest.Token(t, 6))
	client := start(t, gate, &service{
		unary:  func(context.Context) error { t.Error("the handler was called"); return nil },
		stream: func(testgrpc.TestService_FullDuplexCallServer) error { t.Error("the handler was called"); return nil },
	}, false)
	_, unary := client.UnaryCall(holding(t, gate, 5), &testgrpc.SimpleRequest{})
	stream, err := client.FullDuplexCall(holding(t, gate, 5))
	if err != nil {
		t.Fatal(err)
	}
	_, streamed := stream.Recv()
	for name, err := range map[string]error{"unary": unary, "stream": streamed} {
		var stale *fence.StaleError
		if !errors.As(err, &stale) || *stale != (fence.StaleError{Resource: orders, Have: externaltest.Token(t, 5), Floor: externaltest.Token(t, 6)}) {
			t.Errorf("%s: %v", name, err)
		}
		if status.Code(err) != codes.FailedPrecondition {
			t.Errorf("%s: code %v", name, status.Code(err))
		}
	}
}

func TestRefusalsSurviveTheWire(t *testing.T) {
	gate := externaltest.New(t, orders)
	client := start(t, gate, &service{}, true)
	other := externaltest.New(t, orders)
	good := gate.Sign(t, orders, externaltest.Token(t, 5))
	refuse := func(err error) func() context.Context {
		return func() context.Context { gate.Refuse(err); return holding(t, gate, 5) }
	}
	presenting := func(pairs ...string) func() context.Context {
		return func() context.Context {
			gate.Refuse(nil)
			return metadata.NewOutgoingContext(t.Context(), metadata.Pairs(pairs...))
		}
	}
	for _, test := range []struct {
		name    string
		context func() context.Context
		is      error
		code    codes.Code
	}{
		{"none", presenting(), fence.ErrNoCredential, codes.FailedPrecondition},
		{"twice", presenting("writ", good, "writ", good), fence.ErrInvalidWrit, codes.InvalidArgument},
		{"both", presenting("writ", good, "writ-token", "1.9"), fence.ErrInvalidWrit, codes.InvalidArgument},
		{"resembling", presenting("writ", good, "writ_token", "1.9"), fence.ErrInvalidWrit, codes.InvalidArgument},
		{"token 0", presenting("writ-token", "0"), fence.ErrInvalidToken, codes.InvalidArgument},
		{"unknown key", presenting("writ", other.Sign(t, orders, externaltest.Token(t, 9))), fence.ErrUnknownKey, codes.PermissionDenied},
		{"forged", presenting("writ", good[:len(good)-8]+"AAAAAAAA"), fence.ErrInvalidWrit, codes.PermissionDenied},
		{"other resource", presenting("writ", gate.Sign(t, "accounts", externaltest.Token(t, 9))), fence.ErrInvalidWrit, codes.PermissionDenied},
		{"unguarded", refuse(fence.ErrUnguarded), fence.ErrUnguarded, codes.NotFound},
		{"isolated", refuse(&fence.UnavailableError{Resource: orders, Obstacle: fence.Isolated, RetryAfter: 2 * time.Second}), fence.ErrUnavailable, codes.Unavailable},
	} {
		_, err := client.UnaryCall(test.context(), &testgrpc.SimpleRequest{})
		if !errors.Is(err, test.is) || status.Code(err) != test.code {
			t.Errorf("%s: %v with code %v, want %v and %v", test.name, err, status.Code(err), test.is, test.code)
		}
		var away *fence.UnavailableError
		if test.name == "isolated" && (!errors.As(err, &away) || away.Obstacle != fence.Isolated || away.RetryAfter != 2*time.Second || away.Resource != orders) {
			t.Errorf("%s: %+v", test.name, away)
		}
	}
	gate.Refuse(errors.New("secret of the guard"))
	if _, err := client.UnaryCall(holding(t, gate, 5), &testgrpc.SimpleRequest{}); status.Code(err) != codes.Internal || strings.Contains(err.Error(), "secret") {
		t.Errorf("a failure of the guard: %v", err)
	}
	if gate.Refuse(nil); len(gate.Ended()) != 0 {
		t.Error("a refused call was admitted")
	}
	bare := fence.NewContext(t.Context(), fence.Write{Token: externaltest.Token(t, 5)})
	if _, err := client.UnaryCall(bare, &testgrpc.SimpleRequest{}); err != nil {
		t.Errorf("a bare token where it is trusted: %v", err)
	}
}

func TestStreamIsUnderWayUntilItsHandlerReturns(t *testing.T) {
	gate := externaltest.New(t, orders)
	client := start(t, gate, &service{stream: func(s testgrpc.TestService_FullDuplexCallServer) error {
		if _, ok := fence.AdmittedFromContext(s.Context()); !ok {
			t.Error("the handler does not know that it was admitted")
		}
		for {
			if _, err := s.Recv(); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			if err := s.Send(&testgrpc.StreamingOutputCallResponse{}); err != nil {
				return err
			}
		}
	}}, false)
	stream, err := client.FullDuplexCall(holding(t, gate, 5))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := stream.Send(&testgrpc.StreamingOutputCallRequest{}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		if gate.Open() != 1 {
			t.Errorf("%d under way, want the stream", gate.Open())
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}
	if ended := gate.AwaitEnded(t, 1); !slices.Equal(ended, []fence.Outcome{fence.Finished}) {
		t.Errorf("the gate was told %v", ended)
	}
}

func TestCallsAreCut(t *testing.T) {
	gate := externaltest.New(t, orders)
	inside := make(chan struct{})
	wait := func(ctx context.Context) error {
		close(inside)
		<-ctx.Done()
		if cause := context.Cause(ctx); !errors.Is(cause, fence.ErrCut) {
			t.Errorf("cause %v", cause)
		}
		return status.Error(codes.Aborted, "cut")
	}
	client := start(t, gate, &service{unary: wait, stream: func(s testgrpc.TestService_FullDuplexCallServer) error { return wait(s.Context()) }}, false)
	go func() { <-inside; gate.Raise(orders, externaltest.Token(t, 6)) }()
	if _, err := client.UnaryCall(holding(t, gate, 5), &testgrpc.SimpleRequest{}); status.Code(err) != codes.Aborted {
		t.Errorf("error %v, want the handler's", err)
	}
	inside = make(chan struct{})
	again := inside
	go func() { <-again; gate.Raise(orders, externaltest.Token(t, 7)) }()
	stream, err := client.FullDuplexCall(holding(t, gate, 6))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Aborted {
		t.Errorf("stream: %v, want the handler's error", err)
	}
	if ended := gate.AwaitEnded(t, 2); !slices.Equal(ended, []fence.Outcome{fence.Broken, fence.Broken}) {
		t.Errorf("the gate was told %v", ended)
	}
}

// A caller that goes away does not stop a storage that is half-way through a write.
func TestHandlerOutlivesTheCaller(t *testing.T) {
	gate := externaltest.New(t, orders)
	inside, checked := make(chan struct{}), make(chan error, 1)
	s := &service{}
	s.unary = func(ctx context.Context) error {
		close(inside)
		<-s.outer.Done() // the server has noticed
		checked <- ctx.Err()
		return nil
	}
	client := start(t, gate, s, false)
	ctx, cancel := context.WithCancel(holding(t, gate, 5))
	go func() { <-inside; cancel() }()
	if _, err := client.UnaryCall(ctx, &testgrpc.SimpleRequest{}); status.Code(err) != codes.Canceled {
		t.Errorf("the caller has %v", err)
	}
	if err := <-checked; err != nil {
		t.Errorf("the handler was stopped: %v", err)
	}
	if ended := gate.AwaitEnded(t, 1); !slices.Equal(ended, []fence.Outcome{fence.Finished}) {
		t.Errorf("the gate was told %v", ended)
	}
}

func TestPanicBreaksTheCall(t *testing.T) {
	gate := externaltest.New(t, orders)
	interceptors, err := fencegrpc.NewServer(fencegrpc.ServerConfig{
		Admitter: gate, Resource: func(context.Context, fencegrpc.Call) (string, bool) { return orders, true },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("writ", gate.Sign(t, orders, externaltest.Token(t, 5))))
	func() {
		defer func() {
			if r := recover(); r != "oops" {
				t.Errorf("the panic became %v", r)
			}
		}()
		_, _ = interceptors.Unary(ctx, nil, &grpc.UnaryServerInfo{}, func(context.Context, any) (any, error) { panic("oops") })
	}()
	if ended := gate.Ended(); !slices.Equal(ended, []fence.Outcome{fence.Broken}) {
		t.Errorf("the gate was told %v", ended)
	}
}

func TestServerConfigIsChecked(t *testing.T) {
	gate := externaltest.New(t)
	for field, c := range map[string]fencegrpc.ServerConfig{
		"Admitter": {Resource: func(context.Context, fencegrpc.Call) (string, bool) { return "", false }},
		"Resource": {Admitter: gate},
	} {
		if _, err := fencegrpc.NewServer(c); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestErrorLeavesOthersAlone(t *testing.T) {
	plain, foreign := errors.New("x"), status.Error(codes.NotFound, "x")
	for _, err := range []error{nil, plain, foreign, io.EOF} {
		if got := fencegrpc.Error(err); got != err { //nolint:errorlint // it must be the very same
			t.Errorf("%v became %v", err, got)
		}
	}
}

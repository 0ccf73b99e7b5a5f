package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/grpc-ecosystem/grpc-gateway/v2/utilities"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// gateway turns HTTP into calls on the in-memory connection to the gRPC server, so that both pass through the same chain.
type gateway struct {
	mux    *runtime.ServeMux
	leases writv1.LeaseServiceClient
}

// maxTraceparent is far above any trace context.
const maxTraceparent = 128

const watchPath = "/v1/leases:watch"

// useStrictQuery sets what the library keeps for the whole process, although it is an option of a mux.
var useStrictQuery = sync.OnceFunc(func() { runtime.NewServeMux(runtime.SetQueryParameterParser(strictQuery{})) })

func newGateway(conn *grpc.ClientConn) (*gateway, error) {
	useStrictQuery()
	g := &gateway{leases: writv1.NewLeaseServiceClient(conn)}
	g.mux = runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, strictJSON{}),
		runtime.WithErrorHandler(gatewayError),
		runtime.WithRoutingErrorHandler(routingError),
		// No header of a caller becomes metadata, but for the trace context, and none of the metadata a header: what nodes say to each other is not
		// for callers to say.
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithOutgoingTrailerMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithMetadata(func(ctx context.Context, r *http.Request) metadata.MD {
			md := callerMetadata(ctx)
			if said := r.Header.Get(keyTraceparent); said != "" && len(said) <= maxTraceparent {
				md.Set(keyTraceparent, said)
			}
			return md
		}),
		// Else any POST could pose as another method.
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
	)
	ctx := context.Background()
	err := errors.Join(
		writv1.RegisterLeaseServiceHandlerClient(ctx, g.mux, g.leases),
		writv1.RegisterFenceServiceHandlerClient(ctx, g.mux, writv1.NewFenceServiceClient(conn)),
		writv1.RegisterClusterServiceHandlerClient(ctx, g.mux, writv1.NewClusterServiceClient(conn)),
		writv1.RegisterRegionServiceHandlerClient(ctx, g.mux, writv1.NewRegionServiceClient(conn)),
		writv1.RegisterAuditServiceHandlerClient(ctx, g.mux, writv1.NewAuditServiceClient(conn)),
	)
	if err != nil {
		return nil, fmt.Errorf("registering the HTTP API: %w", err)
	}
	return g, nil
}

// callerMetadata names the caller that the HTTP server has found.
func callerMetadata(ctx context.Context) metadata.MD {
	principal, ok := ctx.Value(httpCallerKey{}).(lease.Principal)
	if !ok {
		panic("server: an HTTP request reached the API without a caller")
	}
	return metadata.Pairs(keyGateway, string(principal))
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == watchPath && r.Method == http.MethodGet {
		g.watch(w, r)
		return
	}
	g.mux.ServeHTTP(w, r)
}

// watch streams events as one JSON object a line. A stream that fails ends with a line that holds only "error".
func (g *gateway) watch(w http.ResponseWriter, r *http.Request) {
	req := &writv1.WatchRequest{}
	if err := (strictQuery{}).Parse(req, r.URL.Query(), utilities.NewDoubleArray(nil)); err != nil {
		writeError(w, http.StatusBadRequest, explain(err.Error()))
		return
	}
	ctx := metadata.NewOutgoingContext(r.Context(), callerMetadata(r.Context()))
	stream, err := g.leases.Watch(ctx, req)
	if err != nil {
		writeError(w, lease.HTTPStatus(err), err)
		return
	}
	header, err := stream.Header()
	admitted := err == nil && len(header.Get(keyWatching)) > 0
	controller := http.NewResponseController(w)
	if admitted {
		w.Header().Set("Content-Type", "application/x-ndjson")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusOK)
		_ = controller.Flush() // the next write tells if the reader has gone
	}
	for {
		ev, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return
		case err != nil && !admitted:
			writeError(w, lease.HTTPStatus(err), err)
			return
		case err != nil:
			_, _ = w.Write(append(errorJSON(err), '\n')) // the last words
			return
		}
		line, err := marshalJSON.Marshal(ev)
		if err != nil {
			_, _ = w.Write(append(errorJSON(lease.Errorf(lease.ReasonInternal, "an event cannot be written")), '\n'))
			return
		}
		if _, err := w.Write(append(line, '\n')); err != nil {
			return
		}
		if err := controller.Flush(); err != nil {
			return
		}
	}
}

// marshalJSON writes zeros too, so that the shape of an answer does not depend on its content.
var marshalJSON = protojson.MarshalOptions{EmitDefaultValues: true}

// strictJSON is protobuf's JSON, where fields that do not exist and anything behind the object are errors.
type strictJSON struct{}

func (strictJSON) ContentType(any) string { return "application/json" }

func (strictJSON) Marshal(v any) ([]byte, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("server: cannot write a %T as protobuf JSON", v)
	}
	b, err := marshalJSON.Marshal(m)
	return append(b, '\n'), err
}

func (strictJSON) Unmarshal(data []byte, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("server: cannot read protobuf JSON into a %T", v)
	}
	return protojson.Unmarshal(data, m)
}

func (j strictJSON) NewDecoder(r io.Reader) runtime.Decoder {
	return runtime.DecoderFunc(func(v any) error {
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if len(data) == 0 {
			return io.EOF // which the gateway takes for a message without fields
		}
		return j.Unmarshal(data, v)
	})
}

func (j strictJSON) NewEncoder(w io.Writer) runtime.Encoder {
	return runtime.EncoderFunc(func(v any) error {
		b, err := j.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	})
}

// strictQuery refuses parameters that are not fields of the request; the gateway's own parser passes over them.
type strictQuery struct{}

func (strictQuery) Parse(m proto.Message, values url.Values, filter *utilities.DoubleArray) error {
	fields := m.ProtoReflect().Descriptor().Fields()
	for name := range values {
		if fields.ByTextName(name) == nil && fields.ByJSONName(name) == nil {
			return fmt.Errorf("unknown field %q", name)
		}
	}
	return (&runtime.DefaultQueryParser{}).Parse(m, values, filter)
}

// Package fencegrpc carries writs over gRPC: interceptors for clients, which present what their context holds, and for
// servers that write to a storage of their own, which put a guard before their handlers.
//
//	conn, err := grpc.NewClient(address, grpc.WithUnaryInterceptor(fencegrpc.UnaryClient()), …)
//	ctx = fence.NewContext(ctx, fence.Write{Resource: "orders", Writ: writ})
//	_, err = store.Put(ctx, request) // errors.Is(err, fence.ErrStale): stop writing
//
//	interceptors, err := fencegrpc.NewServer(fencegrpc.ServerConfig{Admitter: guard, Resource: …})
//	server := grpc.NewServer(grpc.UnaryInterceptor(interceptors.Unary), grpc.StreamInterceptor(interceptors.Stream))
//
// The metadata are those of HTTP in small letters: writ, and writ-token where bare tokens are trusted. A refusal is a status
// with a google.rpc.ErrorInfo of the domain writ.io, whose reason is that of package fence: FAILED_PRECONDITION with
// STALE_TOKEN, resource, token and floor for a stale token.
//
// # What it promises
//
// A guarded handler is called only once its call has been admitted. The call counts as under way until the handler returns;
// for a stream that is its end. When a newer token wants it out of the way, the handler's context ends with the cause
// [fence.ErrCut], and the call is broken; a handler that panics breaks it too. On the client's side a refusal matches the
// errors of package fence and keeps its status.
//
// # What it does not promise
//
// What [fence.Run] does not: the handler must not return before the storage has answered, and pauses of the process longer
// than W are beyond a guard in it.
//
// # What it assumes of clocks
//
// Nothing. The handler's context has no deadline of the caller's, for a storage that is half-way through a write is not
// stopped by one.
//
// # How it fails
//
// Closed. A server that does not know what a call writes must say so in its configuration.
package fencegrpc

// Package proxy is a guard in the form of an HTTP reverse proxy: it stands before a storage and lets a write pass only if it
// is admitted, and says to the admission how the write ended.
//
//	p, err := proxy.New(proxy.Config{
//		Routes:    []route.Route{{Path: "/tenants", Resource: "tenants/{1}", Upstream: "store"}},
//		Upstreams: []proxy.Upstream{{Name: "store", URL: "http://127.0.0.1:9000"}},
//	}, admitter, nil)
//	server := p.Server("main")
//	err = server.Serve(listener)
//
// # What it promises
//
//   - A write is admitted before the first byte of it goes to the upstream, and before its caller is asked for the body if it
//     waits to be (Expect: 100-continue). What is not admitted is refused with a fence.Problem.
//   - [fence.Finished] is reported only if the request was handed over completely over one connection and its response was
//     read to the end, where the response itself says where that is; or if certainly nothing was sent. Everything else is
//     [fence.Broken]: a connection that broke, a response that ends with the connection, one that came before the whole body
//     was sent, a 502, 503 or 504, by which a load balancer tells that it does not know what the storage does, a caller that
//     went away in the middle of its body, a response that did not come in time after the caller had gone.
//   - A caller that goes away after its body was sent does not end the write: the response is awaited for Limits.Linger.
//   - When a write is broken off, because a newer token waits for it or for any other reason, its connection is reset
//     before Broken is reported. Nothing of it leaves this process afterwards, however slow caller and upstream are.
//   - A write that may have been sent is not sent again. net/http sends a request anew, on another connection, if a kept
//     connection breaks before the response begins, provided that the request counts as harmless: GET, HEAD, OPTIONS and
//     TRACE without a body, and anything without a body that has an Idempotency-Key. The first copy could then reach the
//     storage after the second has been answered. So checked reads are given a body of nothing, and the header is written
//     idempotency-key, by which net/http does not know it. What remains is that it tries another connection when nothing at
//     all was written to the first, which is harmless. Each connection counts what is written to it, and should a second
//     one be taken after something went out over the first, the write is broken off.
//   - Bodies stream both ways through buffers of a fixed size, with 1xx responses and with trailers.
//   - What a caller presented does not reach the upstream unless forward_writ says so, under no spelling of its name; in
//     mode stamp what reaches it is the guard's own token.
//   - HTTP/2, upgrades, tunnels and TRACE are refused on guarded routes, also for reads, with a reason: their end cannot be
//     seen. Upstreams are spoken to in HTTP/1.1.
//
// # What it does not promise
//
//   - It is of the form that drains: it is safe against a pause of the guard, plus the storage's execution of what was
//     forwarded, that is shorter than W. Bytes that have left this machine are out of its reach.
//   - An upstream that answers and goes on writing afterwards has lied, and the guard believes it.
//   - Reads pass unchecked unless the route says otherwise, and what writes on GET is a read to it. A read in the middle
//     of a takeover may see either side.
//   - A caller that reads its response slowly keeps its write under way until the drain deadline breaks it off.
//
// # Clocks
//
// It has timers for its limits, on Go's clock, and no other use for time: a limit that is late because the machine was
// suspended reports Broken late, which only makes a newer token wait longer.
//
// # How it fails
//
// Closed. Without an admission nothing passes on guarded routes; without a route nothing passes at all. A caller whose write
// broke is told whether it was sent (UPSTREAM_BROKEN: it may have been carried out) or not (UPSTREAM_UNREACHABLE). Close
// refuses what comes afterwards and waits for what is under way.
package proxy

// Package route says which resource a request is for, and how it is guarded.
//
//	table, err := route.New(routes, route.Known{Upstreams: []string{"store"}})
//	match, err := table.Match(route.Request{Host: "store.internal", Method: "PUT", Path: "/tenants/acme/orders"})
//	// match.Resource == "tenants/acme", match.Checked == true
//
// A route names a listener, a host, a path prefix and methods, each of which may be left out to match everything, and
// either a resource or, explicitly, that requests pass unguarded. Of the routes that match a request the most specific
// counts: first the one that names the listener, then the one with the more specific host (a name before a wildcard, a
// longer wildcard before a shorter one), then the one with the longer path, then the one that names methods. The order in
// which routes are written does not matter: two that are equally specific are an error.
//
// # What it promises
//
//   - A request that no route matches is refused: [fence.ErrUnguarded].
//   - A prefix matches whole segments of the path after decoding: /a matches /a and /a/b, never /ab.
//   - Where guarded routes could be meant, an address that programs are known to read in more than one way is refused
//     rather than guessed at: encoded slashes and backslashes, dot segments, empty segments, path parameters, double
//     encoding, control characters, invalid UTF-8, a host that is not one. That holds for unguarded routes beside guarded
//     ones too, because otherwise such an address could lead around the guard.
//   - Every request whose method is not GET, HEAD or OPTIONS is a write, and so is one of these that asks to be taken for
//     another method. CONNECT and TRACE are never routed.
//   - What a template makes of a path is a valid name of a resource, or the request is refused.
//   - The patterns of [Table.Covers] name every resource that [Table.Match] can answer.
//
// # What it does not promise
//
// It cannot know everything that a program behind it does with an address: one that ignores the case of paths, that
// normalises Unicode, or that takes the method from the query or the body, has to be given routes that allow for it, such as
// one resource for the whole host.
//
// # Clocks and failure
//
// A table is made once, reads no clock, and does not change: it is safe for concurrent use. Only [New] can fail, with an
// error that names the field and the fix.
package route

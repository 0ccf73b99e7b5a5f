// Package external holds what the forms of a guard have in common that decide about requests which pass through somebody
// else's program: Envoy (package extauthz), nginx (package authrequest), and anything that asks over a socket (package
// check).
//
// # What it promises
//
// A request is let through only after the guard's gate has admitted it under the writ that it presents, for the resource
// that the routes name. Whatever cannot be read in exactly one way is refused, with a reason: a request line that is no
// path, an upgrade or a tunnel, two credentials, a credential under a name that only resembles the right one.
//
// # What it does not promise
//
// The guard of these forms sees a request begin and does not see it end: it checks, and the other program acts. So each
// request counts as broken at the very moment at which it is admitted, which makes a newer token wait for W after the last
// older request. W therefore has to bound everything that the other program does with the request: receiving the body,
// waiting for a connection, retrying, and the storage's own work. A slow upload that lasts longer than W is a write that
// nobody waits for. The proxy (package proxy) has no such gap; storage that compares tokens itself has none at all.
//
// # What it assumes of clocks
//
// Nothing beyond the admitter's assumptions. A time-out bounds how long a request waits to be admitted.
//
// # How it fails
//
// Closed: without an answer of the guard the other program refuses, as long as it is configured to
// (failure_mode_allow: false in Envoy; nginx knows nothing else).
package external

// Package shift has hooks that send traffic to another region: [DNS] by dynamic updates of a zone (RFC 2136), and [Weights] by
// telling a load balancer.
//
// # What it promises
//
// What a hook sets it sets at once for all records, or not at all. [DNS] keeps the token of the last shift in the zone, and
// makes each update conditional on it: a shift that was held up somewhere, and comes after a newer one, changes nothing. A
// record set is replaced and never left empty.
//
// # What it does not promise
//
// DNS cannot send a share of the traffic anywhere. Below 100 percent the addresses of both regions stand side by side, and
// resolvers take turns as they like, which is about half; a name that is an alias (CNAME) stays as it was until 100. Resolvers
// keep the old answer for its TTL, some for longer. A load balancer does what its maker says.
package shift

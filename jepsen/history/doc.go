// Package history records what clients of the lease API did and saw, and judges whether one lease table that takes one
// request at a time could have answered so, with every request taking effect between its call and its return.
//
// # The model
//
// A resource is free or held, under the last token, with a checkpoint. A grant needs a free resource, carries a greater
// token than every one before, and the last checkpoint; HELD names the present grant; renewals, checkpoints and releases
// succeed under the present grant only.
//
// A lease may expire at any moment once its TTL has passed since the last grant or renewal that was acknowledged began,
// and never before: an answer that shows the lease over, and that was there before that moment, is a violation. The
// model does not demand that a lease expires, since a new coordinator gives every lease its full TTL again; L1 is not judged
// here. Once EXPIRED was answered, nothing may succeed under that token any more, though reads may show the grant until the
// quorum has recorded its end.
//
// # Unknown outcomes
//
// A call that nobody answered may have had its effect then, may have it at any time later, or never. Such calls would make
// the judgement exponential, so [Check] first narrows them down, without changing the verdict: what nobody ever saw the
// effect of is left out, and what somebody saw had its effect before that. NO_QUORUM promises that nothing was changed, and
// is held to that.
//
// Call and return are instants of one clock. Servers must count a TTL by a clock of the same rate, which processes of one
// machine do.
package history

// Package tracing sends what nodes, guards and agents do for promotions to an OpenTelemetry collector.
//
// # What it promises
//
// One promotion is one trace: that of the call which planned it, or one of its own. Its spans are the calls of people and the
// nodes that they pass, the promotion and each of its states (see [Promotions]), each guard from when it was told to when it
// acknowledged, and each hook. Their ids are made of what they are of, so that two nodes which tell of the same state tell the
// same span.
//
// Nothing waits for a collector. Spans stand in a queue of [queueSize]; what comes when it is full is dropped. Without an
// endpoint there is no [Tracer], and nothing is installed anywhere.
//
// # What it does not promise
//
// That a trace is whole. A node that ends has its last spans told by the next coordinator, an agent or a guard has not.
package tracing

// Package netns gives programs of a test a network of their own, which can be cut: each party stands in a network namespace,
// and a bridge in a namespace of its own joins them.
//
// # What it promises
//
//   - Nothing leaves the network. There is no route out of it, and none in; a test takes part by standing in for a party,
//     see [Net.Dial].
//   - [Net.Cut] drops silently what one party sends to another, packets of established connections included, and leaves
//     the opposite direction alone. [Net.Unplug] takes a party off the bridge.
//   - Close removes everything. What a test that crashed has left behind is removed by the next [New].
//
// # How
//
// No filter is needed, only the program ip. Every party has permanent neighbour entries for all others; a cut replaces one
// by an address that nobody has, so that the bridge carries the frames to where nobody takes them.
//
// # What it does not promise
//
// It needs root, and Linux. Delays, losses in part and reordering are not offered. A name in the file system is what keeps a
// namespace, so removing it ends the network only when the processes in it have ended too: they belong to the caller.
package netns

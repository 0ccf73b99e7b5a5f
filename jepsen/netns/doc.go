// Package netns gives programs of a test a network of their own, with delays, losses and cuts: each party stands in a network
// namespace, and a switch in this process carries packets between them.
//
// # What it promises
//
//   - Nothing leaves the network. There is no route out of it, and none in; a test takes part by standing in for a party,
//     see [Net.Dial].
//   - [Net.Cut] drops silently what one party sends to another, packets of established connections included, and leaves
//     the opposite direction alone. [Net.Refuse] answers with resets instead. [Net.Unplug] takes a party off the network.
//   - [Net.Shape] delays, loses, doubles and reorders what one party sends to another, and limits how much gets through.
//     It comes on top of how long the way is by [Net.Base].
//     What happens to the n-th packet of a link depends on the seed, the link and n only.
//   - Close removes everything. What a test that crashed has left behind is removed by the next [New].
//
// # How
//
// Each namespace has a TUN device, whose other end this process holds; a packet that is read from one is written to
// another, at once or when its time has come. A link without a shape adds the way through this process, some 20 µs.
//
// # What it does not promise
//
// It needs root, Linux and /dev/net/tun. Only IPv4 passes. When this process is paused or ends, nothing passes. A name in the
// file system is what keeps a namespace, so removing it ends the network only when the processes in it have ended too: they
// belong to the caller.
package netns

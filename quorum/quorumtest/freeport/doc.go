// Package freeport finds loopback ports for servers inside tests. It is apart from quorumtest so that tests of the store, which
// quorumtest builds on, can have them too.
package freeport

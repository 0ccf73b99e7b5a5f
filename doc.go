// Package writ is the root of the module and holds no code: it is where a
// newcomer learns which door leads where. Writ is a service for leases with
// fencing tokens, kept by a quorum of nodes that embed etcd, and for moving a
// region's write role from one place to another without two writers.
//
// # To use it from a program
//
//   - [github.com/writ-io/writ/lease] acquires and keeps a lease.
//   - [github.com/writ-io/writ/singleton] runs, schedules and consumes on top
//     of a lease, in one process at a time.
//   - [github.com/writ-io/writ/fence] is what storage needs to refuse a holder
//     that does not know yet that it lost its lease.
//
// # To run it
//
// cmd/writ is the node and the operator's command, cmd/writ-guard the sidecar
// that fences a storage which cannot check tokens by itself.
//
// # To change it
//
// Every protocol is a pure core, a struct that turns events into effects,
// beside a thin shell that turns effects into I/O. Files that hold a core say
// so with the comment //writ:core. The tests of this package keep the house in
// order: which package may import which, what a core must not do, which etcd
// is embedded and whose licences are linked. Each failure says what to do.
package writ

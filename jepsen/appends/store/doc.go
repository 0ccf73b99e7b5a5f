// Package store is a program of the fault harness: a storage of one list over HTTP, which applies whatever it is given and
// says in which order it did.
//
// # What it promises
//
// A write is said on standard output, as a [Line] of JSON, before whoever sent it is answered, and in the order in which
// the writes took effect. If nobody hears it any more, the program ends. A write that was read whole is applied, also when
// its sender has gone.
//
// # What it does not promise
//
// Unless [Config].Atomic or [Config].Postgres is set, it compares nothing: what protects it stands before it. It forgets
// everything when it ends.
package store

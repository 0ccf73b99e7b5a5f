// Package fence holds the two things that make a write refusable: the fencing
// [Token], which orders grants, and the [Writ], a grant as a signed statement
// that anybody with the public keys can verify offline.
//
// # What it promises
//
//   - Comparing two valid tokens as integers, as (epoch, sequence) pairs, or by
//     [Token.Compare] gives the same order. A token survives text, JSON and SQL
//     unchanged.
//   - [KeySet.Verify] accepts a writ only with an EdDSA signature, over exactly
//     these bytes, by a key of the set. There is one accepted spelling of each
//     signed statement: every altered byte is refused, including alterations
//     that decode to the same content.
//   - Bytes from outside never panic; they are refused with an error that names
//     the field and the way to fix it.
//   - A private key is written atomically with mode 0600, and one that others
//     could read is not loaded.
//
// # What it does not promise
//
// A writ proves that it was issued, not that it is still the newest: it has no
// expiry, and newer tokens end it. Only a guard, which keeps the highest token
// it has seen for the resource, can tell. A token by itself proves nothing at
// all, because any client can invent a number; take a bare one only from
// callers that are trusted not to.
//
// Whoever verifies must also ask whether the writ is for the right resource,
// from the right issuer: see [Writ.Require].
//
// # What it assumes of clocks
//
// Nothing. IssuedAt is for people and takes no part in any decision.
//
// # How it fails
//
// Errors match one of the sentinels of this package with errors.Is. Those that
// carry data are [*StaleError] and [*InvalidError].
package fence

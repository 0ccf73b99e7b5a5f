// Package sqlcmd holds the commands "writ-guard sql …", which install, verify and raise fences inside of PostgreSQL. See
// package pgfence for what such a fence promises.
//
// # What it promises
//
// Data goes to standard output, as a table or as JSON with a stable shape; errors are returned and printed by the caller.
// An error knows its exit code, see [ExitCode]. Installing and uninstalling are transactions: what fails has changed
// nothing.
//
// # How it fails
//
// Exit codes: 0 ok; 1 error; 2 refused: a stale token, or something that "verify" found unprotected; 4 not authorised;
// 5 no connection; 6 pending: the floor is raised, but older transactions still run.
package sqlcmd

// Package table keeps a list of the fault harness in PostgreSQL, under a fence: each write replaces the end of the list, and
// leaves a row that tells of it.
//
// # What it promises
//
// A write takes its number from a row that holds every other write up until its transaction has ended, so that writes are
// numbered in the order in which they were committed, see [After]. Reads raise the fence to the reader's token first: nothing
// older is committed after them.
//
// # What it does not promise
//
// It compares nothing itself, the database does. An error without an SQLSTATE may hide a write that was committed.
package table

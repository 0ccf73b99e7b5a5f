// Package postgres has the probe and the hooks of an agent for PostgreSQL with streaming replication.
//
// # What it promises
//
// [Probe] tells the role, the position in the log, how far the upstream was when it last said so, the lag, and whether the
// server takes writes. A position's log is the system identifier and the timeline, as in 7300000000000000000/1.
//
// The hooks can each be run again after any end. Drain makes sessions read-only by default, ends those that are older than
// that, and answers a position behind which nothing comes that was acknowledged. Promote waits for that position where it is
// told one, and else while what was received is being replayed; it promotes, raises the fence of package pgfence to the new
// token, and only then lets sessions write. Reinstate makes a former primary follow the new one by pg_rewind, or by a new copy;
// before that it lists what only the old one had, and keeps it. Verify writes with the new token, and asks that the old one is
// refused.
//
// # What it does not promise
//
// default_transaction_read_only is a default, which a session may override: it stops programs that are well-meaning. What
// stops the others is a guard, or package pgfence. Lag in time is measured by the clocks of two servers, and is an upper bound
// where the upstream does not answer.
//
// Reinstating from a new copy is refused where there are tablespaces outside of the data directory.
//
// # What it assumes
//
// PostgreSQL 15 or newer, and a role that may do what is asked: a superuser is. pg_rewind needs wal_log_hints or data
// checksums. Programs run as the agent's own user, or behind [Config].As.
//
// # How it fails
//
// A hook that fails has done a part, and is run again. Data is never deleted: what is replaced is moved to KeepDir before. A new
// copy is made beside DataDir, under its name with .copy- behind, and takes its place when it is whole and a standby; what is
// left there by a run that was ended is removed by the next one. What was lost is listed once: a run that finds less of the log
// than one before it keeps that one's list.
package postgres

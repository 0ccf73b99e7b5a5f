// Package pgfence fences inside of PostgreSQL: a trigger refuses every statement that writes to a protected table in a
// transaction which has not presented the newest token.
//
// # What it promises
//
// It is atomic: the check is part of the transaction. However long a writer, its connection or its backend is paused, and
// wherever, once a [Bump] to a token has answered, no transaction under an older one commits any more, and everything that
// older ones have committed is visible to transactions that begin afterwards. So a fenced read-modify-write within one
// transaction, or over several under one token, loses no acknowledged update. It holds at every isolation level, for
// INSERT, UPDATE, DELETE, TRUNCATE, MERGE, COPY and writable CTEs; through views, rules, functions and cascades; for
// replication roles; and across crashes of the server.
//
// How: a transaction that writes takes an advisory lock of the fence, shared, until it ends, and then compares its token
// with the floor as of that moment. A bump first commits the new floor, from when older tokens are refused at once, also
// to transactions in flight for their next statement. Then it takes the lock exclusively, which waits for those in flight
// (proof: acked) or, when patience ends, terminates their backends (cut), whereby PostgreSQL rolls them back or has
// committed them before. The waiting bump heads a fair queue, so that a stream of short transactions cannot starve it; a
// row lock FOR SHARE in the lock's place could, and costs a multixact for each transaction. A snapshot that is older
// than the lock, as of REPEATABLE READ and SERIALIZABLE, would show an old floor; those transactions also lock a row that
// every bump changes, FOR SHARE, which PostgreSQL refuses with a serialization failure (SQLSTATE 40001) if it has changed.
//
// # How to write
//
// [Pool] for pgx and [DB] for database/sql begin transactions that present a token; see [Pool.BeginTx]. [FromError] turns
// the database's refusals into the errors of this package and of package fence. Writers in other languages call
// writ.set_token(resource, token) first in each transaction, after somebody has bumped to that token.
//
// A commit whose answer is lost may have happened. After a bump to a newer token it can be looked up, for then it either
// has, or never will.
//
// # What it does not promise
//
//   - A token in SQL is a bare number. It is trusted from roles that log in with the right to present tokens (see [Grant]),
//     from superusers and from the owner of the fence; from others it is refused. Signed writs are verified in the
//     writer's process, by [Config].Verifier. Whoever may raise can lock out everybody with an older token.
//   - Owners of tables and superusers can disable or drop triggers, and nothing inside of the database can keep them from
//     it. [Verify] finds what they left, but not what they did and undid again. Give tables to a role that nobody logs in as.
//   - Partitions and children that are created later, or attached, are protected only against writes through a parent, and
//     a parent that comes later is a way around. Run [Install] again; [Verify] lists them.
//   - Logical replication applies rows without firing statement triggers: protect the publisher. Sequences, large objects,
//     foreign and temporary tables, and DDL that rewrites a table are not fenced.
//   - A prepared transaction (PREPARE TRANSACTION) has no backend to terminate. A bump names it in a [*BusyError] and waits
//     for somebody to settle it.
//   - Anybody who can connect can take an advisory lock, also this one, and so hold up writers until the next bump. That
//     one cuts who holds it shared; an exclusive one has to be ended by an administrator. No write gets through by that.
//   - A statement of an older program that reads under one token, and writes in another transaction under a newer one that
//     it took from somewhere, is not what a fence can notice. A token belongs to the work that was begun under it.
//
// # Replication, backups and promotion
//
// The floor is a row and replicates with the data. A standby that is promoted may be behind, and so may be a restored
// dump or an earlier point in time: its floor is then the one of that time. Therefore bump the new primary to the new
// token before it gets any traffic; the bump's proof is about that server. Restore a data-only dump as a superuser with
// --disable-triggers, for it presents no token.
//
// PostgreSQL has no guard lease of its own. A server that cannot be reached cannot be bumped, and does not refuse older
// tokens by itself after a time; it counts as fenced only by a bump or an attestation. The quorum counts it so when a guard
// with the form postgres stands beside it (fence/guard/database).
//
// # What it assumes
//
// PostgreSQL 15 or newer, with fsync on. Tokens are presented for the lifetime of a transaction, with SET LOCAL, so that
// connection poolers in transaction mode are fine. Nothing depends on clocks: time-outs decide only how long to wait, and
// raised_at and the like are for people.
//
// # How it fails
//
// Closed. Without a token, a fence row, or a trigger function that finds everything as it should be, writes are refused.
// SQLSTATE WF001: no token; WF002: stale; WF003: no such resource; WF004: not raised to that token yet; WF005: role not
// trusted; WF006: not a token; WF007: the installation is damaged. The detail is JSON with reason, resource, token, floor.
package pgfence

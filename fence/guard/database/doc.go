// Package database is the guard of tables in PostgreSQL that have a fence (package pgfence): it makes raises of the quorum raises
// of the database, so that what is acknowledged is what the database refuses.
//
// # What it promises
//
//   - A floor counts as durable only when the database refuses every older token, and every transaction under one has ended: by
//     itself, or by being terminated. That does not depend on how long this process, or a writer, stands still.
//   - Every floor is raised again when the process starts, and whenever the database is found below it: it may have been put back
//     to an earlier state, or be a standby that was promoted.
//   - A server in recovery takes no writes at all. For it a raise is noted as done, and carried out as soon as the server leaves
//     recovery.
//
// # What it does not promise
//
//   - The database goes on admitting the newest token that it knows of while this process is down or the quorum out of reach. A
//     raise waits until it is back, or until people answer for it: there is no lease that could run out instead.
//   - Between the promotion of a standby, or the start of a database that was put back, and the next look at it, the floors are
//     those that its data has: for up to [Config.CheckEvery], or until this process runs again. Promotions by the region agent raise
//     them before traffic.
//   - It speaks with one server. One that the name in the configuration does not lead to is fenced by nobody: name the server
//     itself, not whichever is the primary.
//   - Owners of tables and superusers can take triggers away; [pgfence.Verify] finds what they left.
//
// # How it fails
//
// A database that cannot be reached, has no fence for a resource, or has transactions that cannot be ended, fails the raise; the
// guard then asks for no contact, and tries again, at most every five seconds.
//
// One goroutine looks at the database now and then ([Database.Run]); everything else runs in its callers.
package database

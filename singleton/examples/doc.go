// Package examples holds complete programs that work in one place across all regions, to be copied: each is one file of Go
// and one of SQL.
//
//   - billing: a cron job that bills every customer once a night.
//   - consumer: the partitions of a log of events, divided over all processes.
//   - controller: a loop that makes what is as it should be.
//   - scheduler: a leader that plans work, and workers that do it.
//
// Each says in its own documentation how to run it against "writ dev". The tests of this package start each one as three
// processes in three regions on a real quorum and a real PostgreSQL, kill one, pause one and stop one, and look at what
// they leave in the database.
//
// # What they promise
//
// Every effect is in the database once, whatever happens to the processes: it is written in a transaction that presents the
// token of the term in which the work was begun, under an id that further attempts share. Package pgfence refuses the
// transaction when a newer token is there.
//
// # What they do not promise
//
// They are small: there is one statement where a service has a layer, and the database is theirs. Tables are written to as
// the role in the connection string, and -setup as well, which has to be their owner or a superuser; docs/GUARDS.md says
// which rights are enough for a program in service.
//
// # Clocks and failure
//
// No example asks the time for a decision; the SDK does, see package singleton. An error of the database is logged and what
// failed is tried again, for as long as the term lasts. SIGTERM and SIGINT end the term, hand over, and end the process with
// code 0. Other errors end it with code 1, flags that cannot be used with code 2.
package examples

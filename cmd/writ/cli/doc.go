// Package cli is the client's side of the writ command: leases, work under a lease, the quorum's operation, and
// the simulator.
//
// Data goes to standard output, as a table or, with -o, as JSON (the field names of the API) or YAML; everything else goes
// to standard error. The exit code says how it ended, by the table in package lease: 0 ok, 1 error, 2 refused or stale, 3
// held by another, 4 not authorised, 5 unavailable, 6 pending, 7 expired. "writ run" passes the code of its command and
// uses 125 for its own failures.
package cli

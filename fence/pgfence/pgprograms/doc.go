// Package pgprograms finds the programs of a PostgreSQL server on this machine, and whom to run them as, for those who start servers
// of their own: the demo, tests, and the fault harness.
//
// It looks in PATH, /usr/lib/postgresql/*/bin and /usr/local/pgsql/bin, and takes PostgreSQL 15 or newer, which package pgfence
// is tested with. PostgreSQL refuses to run as root, so root runs it as postgres or nobody. It starts nothing itself but each
// program that it finds, with --version.
package pgprograms

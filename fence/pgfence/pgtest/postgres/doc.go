// Package postgres finds the programs of a PostgreSQL server on this machine, and whom to run them as, for tests and for the
// fault harness, which start servers of their own.
//
// It looks in PATH, /usr/lib/postgresql/*/bin and /usr/local/pgsql/bin, and takes PostgreSQL 15 or newer. PostgreSQL refuses to
// run as root, so root runs it as postgres or nobody. It starts nothing itself but each program that it finds, with --version.
package postgres

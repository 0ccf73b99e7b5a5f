// Package pgtest runs a real PostgreSQL server for tests.
//
// # What it promises
//
// One server for each test binary, started when a test asks for it first, in a directory of its own, reachable over a
// unix socket only. It does not wait for disks unless a test asks for that with [Fsync]. Each test gets a database of its
// own; roles are shared by the whole server. [Main] stops the server and removes its directory.
//
// A test is skipped where there is no PostgreSQL 15 or newer, unless the environment says WRIT_CI=1: then it fails.
//
// # What it assumes
//
// The programs are in PATH, /usr/lib/postgresql/*/bin or /usr/local/pgsql/bin. PostgreSQL refuses to run as root, so root
// runs it as postgres or nobody.
package pgtest

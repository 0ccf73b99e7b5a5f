// Package purity rejects a protocol core that is not pure.
//
// A core decides; a shell acts. The simulator can replay a core from a seed
// only if the core's outputs are a function of its inputs, so a core starts no
// goroutine, takes no lock, reads no clock, draws no random number, does no
// I/O and lets no map order leak.
//
// # Directives
//
// A file is a core file if it holds the comment
//
//	//writ:core
//
// alone on a line, starting in the first column, before the first declaration
// that is not an import: above the package clause (apart from or within the
// package comment) or below the imports. Anywhere else, or written otherwise,
// the comment is reported, because a directive that silently does nothing is
// worse than none.
//
// A range over a map is accepted if the comment lines directly above it hold
//
//	//writ:unordered REASON
//
// where REASON says why the order cannot matter. A reason ends at the next " //".
//
// # What is rejected in a core file
//
//   - go, select, channel types, sends, receives, close, range over a channel
//   - recover, print and println
//   - range over a map without //writ:unordered; maps.Keys, Values and All
//     unless they go straight into slices.Sorted or one of its siblings
//   - package-level variables, except blank ones and error sentinels made by
//     errors.New, fmt.Errorf or as &T{…}; assigning to any package-level variable or
//     taking its address; func init
//   - imports of packages that lock, wait, communicate, draw random numbers or
//     expose memory (see deniedImports), and of modules other than this one,
//     google.golang.org/protobuf and github.com/google/btree; also using what
//     such a package declares without importing it, as in calling a method of an
//     embedded sync.Mutex
//   - the clocks and timers of packages time and lease/clock (arithmetic on
//     time.Duration, time.Time and clock.Instant is fine), printing to standard
//     output, iter.Pull, and protobuf encoders whose output may vary
//   - calling a function or method of the same package, or using a variable of
//     it, that is declared in a file without the directive
//
// # What it does not see
//
// Calls through function values and through interfaces that the core itself
// declares, and what the functions of other packages of this module do inside.
// Those are for the reviewer.
package purity

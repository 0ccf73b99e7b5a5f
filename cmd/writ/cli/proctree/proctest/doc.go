// Package proctest helps to test programs that start processes: it hears from processes that are not children of the test,
// and notices when the last of them is gone.
package proctest

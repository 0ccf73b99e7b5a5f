// Package proctest helps to test programs that start processes: an [Actor] is a tree of processes that behave as told, and a
// [Line] hears from them, also where they are no children of the test, and notices when the last of them is gone.
package proctest

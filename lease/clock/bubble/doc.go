// Package bubble runs tests in testing/synctest bubbles, also under the race detector.
//
// The race detector of Go crashes, with SIGSEGV or "ThreadSanitizer: CHECK failed", when two timers of one bubble fire on
// two threads at once: both use the one race context that the bubble has for its timers (golang/go#78156, seen up to Go
// 1.26.8). [Test] therefore runs a bubble on one processor when the race detector is on. The detector finds what is not
// ordered, whether or not it ran at the same time, so nothing is lost.
//
// A test that uses [Test] must not run in parallel with others.
package bubble

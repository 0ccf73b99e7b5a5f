// Package wait lets time pass in programs that work against real clocks, for as long as anybody wants them to.
package wait

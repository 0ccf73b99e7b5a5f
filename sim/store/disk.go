package store

import "time"

// Disk is what can be done to the disk of a process from outside. The fields take effect with the next write.
type Disk struct {
	// Slower is added to every flush.
	Slower time.Duration
	// Full makes every write fail, which the process does not survive.
	Full bool
	// Torn makes the next crash tear the tail: part of what was not flushed is there.
	Torn bool
	// Wipe empties the disk; its process must not be up.
	Wipe func()
	// Image is a copy of what is flushed; PutBack makes the disk what it was then; its process must not be up.
	Image   func() any
	PutBack func(image any)
	// Holds is how far the log on the disk goes: what a start compares with the witness. Zero on an empty disk.
	Holds func() (raftTerm, index uint64)
	// OnFull is called when a write has failed, or when the store has found out that the disk lost what it had flushed: the
	// process ends then.
	OnFull func()
}

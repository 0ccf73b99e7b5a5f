package floors

import "errors"

var (
	// ErrInUse means that another process has the store open. Two guards must not share a file.
	ErrInUse = errors.New("floors: another guard has this file open")

	// ErrDamaged means that the file is not what was written: cut short, or changed. Move it away: a guard without one
	// starts with an empty store and learns the floors from the quorum.
	ErrDamaged = errors.New("floors: damaged store")

	// ErrForeign means that the file is something else than a store of floors of this format.
	ErrForeign = errors.New("floors: not a store of floors")

	// ErrVersion means that a batch does not go on from the version before.
	ErrVersion = errors.New("floors: version does not go up")

	// ErrInvalid means that a batch holds something that is not a floor. Nothing of it has been written.
	ErrInvalid = errors.New("floors: invalid batch")

	// ErrBroken means that the disk failed in a way after which nobody knows what is on it.
	ErrBroken = errors.New("floors: store broken")

	// ErrClosed means that the store has been closed.
	ErrClosed = errors.New("floors: store closed")
)

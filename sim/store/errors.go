package store

import "errors"

// Errors of a cluster.
var (
	// ErrNoData says that there is nothing on the disk of a process: it is a member of nothing.
	ErrNoData = errors.New("store: nothing on the disk")
	// ErrNoMember says that a change of the membership is about somebody who is not a member, or not what it needs.
	ErrNoMember = errors.New("store: no such member")
	// ErrNotReady says that a learner lags too far behind to be promoted.
	ErrNotReady = errors.New("store: learner is not ready")
)

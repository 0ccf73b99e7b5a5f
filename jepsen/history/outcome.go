package history

import (
	"context"
	"errors"

	"github.com/writ-io/writ/lease"
)

// OutcomeOf sorts what a call returned.
func OutcomeOf(kind Kind, err error) Outcome {
	if err == nil {
		return OK
	}
	err = lease.FromError(err)
	byToken := kind == Renew || kind == Release || kind == Checkpoint
	switch reason := lease.ReasonOf(err); {
	case reason == lease.ReasonNoQuorum, reason == lease.ReasonNotCoordinator, reason == lease.ReasonRecovering:
		return Refused
	case reason == lease.ReasonUnknownOutcome, errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return Unknown
	case reason == lease.ReasonHeld && kind == Acquire:
		return Held
	case (reason == lease.ReasonExpired || reason == lease.ReasonReleased) && kind == Acquire:
		// A node asked the coordinator again on its own, and the grant that the first attempt had made is over.
		return Unknown
	case reason == lease.ReasonExpired && byToken:
		return Expired
	case reason == lease.ReasonReleased && byToken:
		return Released
	case reason == lease.ReasonNotHolder && byToken:
		return NotHolder
	case reason == lease.ReasonNotFound && kind == Get:
		return NotFound
	}
	return Absurd
}

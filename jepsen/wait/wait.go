package wait

import (
	"context"
	"time"
)

// For waits for a span, or less if ctx ends; it returns false then.
func For(ctx context.Context, span time.Duration) bool {
	timer := time.NewTimer(span)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

package bubble

import (
	"runtime"
	"testing"
	"testing/synctest"
)

// Test is synctest.Test, on one processor if the race detector is on.
func Test(t *testing.T, f func(*testing.T)) {
	t.Helper()
	if RaceDetector {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	}
	synctest.Test(t, f)
}

package schedule_test

import (
	"fmt"
	"time"

	"github.com/writ-io/writ/singleton/schedule"
)

// A quarter past two does not exist in Berlin on the night that its clocks are set forward; the job runs right after.
func ExampleParse() {
	s, err := schedule.Parse("CRON_TZ=Europe/Berlin 15 2 * * *", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	at := time.Date(2026, 3, 28, 12, 0, 0, 0, time.UTC)
	for range 2 {
		at, _ = s.Next(at)
		fmt.Println(at)
	}
	// Output:
	// 2026-03-29 03:00:00 +0200 CEST
	// 2026-03-30 02:15:00 +0200 CEST
}

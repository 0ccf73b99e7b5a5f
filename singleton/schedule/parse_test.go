package schedule

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/writ-io/writ/lease"
)

func TestParseNamesTheField(t *testing.T) {
	for _, test := range []struct{ spec, zone, field string }{
		{"", "", "spec"}, {"   ", "", "spec"}, {"* * * *", "", "spec"}, {"* * * * * * *", "", "spec"},
		{"TZ=", "", "spec"}, {"CRON_TZ=", "", "spec"}, {"TZ= * * * * *", "", "spec"}, {"TZ=UTC", "", "spec"}, {"TZ=\t", "", "spec"},
		{"TZ=Nowhere/Town * * * * *", "", "spec"}, {"TZ=Local * * * * *", "", "spec"}, {"TZ=../etc/passwd * * * * *", "", "spec"},
		{"* * * * *", "Local", "zone"}, {"* * * * *", "Mars/Olympus", "zone"}, {"* * * * *", "\x00", "zone"},
		{"@every", "", "spec"}, {"@every ", "", "spec"}, {"@every 1.5s", "", "spec"}, {"@every 0s", "", "spec"}, {"@every -1h", "", "spec"},
		{"@every 999999999h", "", "spec"}, {"@reboot", "", "spec"}, {"@", "", "spec"},
		{"60 * * * *", "", "minute"}, {"-1 * * * *", "", "minute"}, {"+1 * * * *", "", "minute"}, {"1- * * * *", "", "minute"},
		{"1,,2 * * * *", "", "minute"}, {"*/0 * * * *", "", "minute"}, {"*/60 * * * *", "", "minute"}, {"*/ * * * *", "", "minute"},
		{"1/2/3 * * * *", "", "minute"}, {"** * * * *", "", "minute"}, {"*-5 * * * *", "", "minute"}, {"JAN * * * *", "", "minute"},
		{"99999999999999999999 * * * *", "", "minute"}, {"٣ * * * *", "", "minute"},
		{"61 * * * * *", "", "second"}, {"* 24 * * *", "", "hour"}, {"* 5-3 * * *", "", "hour"}, {"* L * * *", "", "hour"},
		{"* * 0 * *", "", "day of month"}, {"* * 32 * *", "", "day of month"}, {"* * 1W * *", "", "day of month"}, {"* * L,x * *", "", "day of month"},
		{"* * L,* 13 *", "", "month"}, {"* * * 0 *", "", "month"}, {"* * * FEBR *", "", "month"},
		{"* * * * 8", "", "day of week"}, {"* * * * FRI-MON", "", "day of week"}, {"* * * * 5#2", "", "day of week"}, {"* * * * MON-L", "", "day of week"},
		{"0 0 30 2 *", "", "day of month"}, {"0 0 31 4,6,9,11 *", "", "day of month"}, {"0 0 30-31 FEB ?", "", "day of month"},
		{strings.Repeat("1,", 200) + "1 * * * *", "", "spec"},
	} {
		s, err := Parse(test.spec, test.zone)
		var invalid *lease.Error
		if !errors.As(err, &invalid) || invalid.Reason != lease.ReasonInvalid || invalid.Field != test.field || invalid.Fix == "" {
			t.Errorf("Parse(%q, %q) = %v, %v, want INVALID for %q with a fix", test.spec, test.zone, s, err, test.field)
		}
	}
}

func TestSpecsThatFireAreAccepted(t *testing.T) {
	for _, spec := range []string{
		"0 0 29 2 *", "0 0 30 2 FRI", "0 0 31 2,3 *", "0 0 30,L 2 *", "0 0 30,* 2 *", "?,5 * * * *", "0-59/59 0-23/23 * * *", "0 0 */31 * *",
		"* * * * 7/2", "* * * * SUN-SAT", "59 59 23 31 12 6",
	} {
		if _, ok := mustParse(t, spec).Next(time.Unix(0, 0)); !ok {
			t.Errorf("%q has no slot", spec)
		}
	}
}

// FuzzAgainstRobfig compares with github.com/robfig/cron in UTC, where daylight saving cannot come between.
func FuzzAgainstRobfig(f *testing.F) {
	for _, spec := range []string{
		"* * * * *", "*/15 3-9/2 1,15 JAN-jun MON-FRI", "0 0 29 2 *", "5/20 * ? * *", "30 */5 * * * *", "0 0 13 * FRI", "0 0 */10 * 2",
		"TZ=", "CRON_TZ=UTC 1 2 3 4 5", "@every 90s", "@weekly", "0 0 L * *", "0 0 30 2 *", "*/2,* * * * *",
	} {
		f.Add(spec, int64(1795000000))
		f.Add(spec, int64(-62135596800))
		f.Add(spec, int64(253402300799))
	}
	six := cron.NewParser(cron.SecondOptional | cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.Descriptor)
	f.Fuzz(func(t *testing.T, spec string, after int64) {
		ours, err := Parse(spec, "UTC")
		if err != nil {
			var invalid *lease.Error
			if !errors.As(err, &invalid) || invalid.Field == "" || invalid.Fix == "" {
				t.Fatalf("Parse(%q): %v", spec, err)
			}
		} else if again, err := Parse(ours.String(), ""); err != nil || again.fields != ours.fields || again.every != ours.every {
			t.Fatalf("%q reads as %q, and that as %v, %v", spec, ours, again, err)
		}
		if err == nil {
			at := time.Unix(after%(1<<40), 0)
			if next, ok := ours.Next(at); ok && !next.After(at) {
				t.Fatalf("%q: Next(%s) = %s", spec, at, next)
			}
		}
		if strings.Contains(spec, "TZ=") || strings.Contains(spec, "@every") || len(spec) > MaxSpecBytes {
			return // it panics at some, and anchors otherwise
		}
		theirs, theirErr := six.Parse(spec)
		if theirErr != nil {
			// 7, L and what they read as out of range is ours alone.
			if err == nil && !strings.ContainsAny(spec, "7Ll") {
				t.Fatalf("%q: they say %v, we read %s", spec, theirErr, ours)
			}
			return
		}
		if err != nil {
			return // a step that leads out of the field, a sign, a day that never comes
		}
		at := time.Unix(int64(uint64(after)%(200*365*86400)), 0).UTC()
		for range 5 {
			next, ok := ours.Next(at)
			if their := theirs.Next(at); their.IsZero() {
				if ok && next.Sub(at) < 4*365*24*time.Hour { // they look five years ahead
					t.Fatalf("%q: after %s they find nothing and we %s", spec, at, next)
				}
			} else if !ok || !next.Equal(their) {
				t.Fatalf("%q: after %s they say %s and we %s, %v", spec, at, their, next, ok)
			}
			at = next
		}
	})
}

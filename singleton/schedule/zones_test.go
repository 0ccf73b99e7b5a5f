package schedule

import (
	_ "embed"
	"strings"
	"testing"
	"time"
)

//go:embed testdata/zones.txt
var zoneNames string

// ruled is a spec and the same written as a rule over hours and minutes of the local clock.
type ruled struct {
	spec     string
	elapsing bool
	matches  func(hour, minute int) bool
}

var ruledSpecs = []ruled{
	{"30 2 * * *", false, func(h, m int) bool { return h == 2 && m == 30 }},
	{"0 0 * * *", false, func(h, m int) bool { return h == 0 && m == 0 }},
	{"*/10 1-3 * * *", false, func(h, m int) bool { return h >= 1 && h <= 3 && m%10 == 0 }},
	{"5 */2 * * *", false, func(h, m int) bool { return h%2 == 0 && m == 5 }},
	{"45 0-22 * * *", false, func(h, m int) bool { return h <= 22 && m == 45 }},
	{"*/15 * * * *", true, func(_, m int) bool { return m%15 == 0 }},
	{"20 0-23 * * *", true, func(_, m int) bool { return m == 20 }},
}

// Around every transition of every zone from 2020 to 2030, slots are compared with a walk, minute by minute, over what the
// local clock shows.
func TestEveryTransitionOfEveryZone(t *testing.T) {
	zones, transitions := 0, 0
	seen := make(map[string]bool)
	for name := range strings.Lines(zoneNames) {
		name = strings.TrimSpace(name)
		zone, err := ParseZone(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		zones++
		found := transitionsOf(zone, 2020, 2030)
		var key strings.Builder
		for _, at := range found {
			key.WriteString(at.Add(-time.Second).In(zone).Format("-0700") + at.In(zone).Format(time.RFC3339))
		}
		if seen[key.String()] {
			continue // another name of a zone that was walked, as far as these years go
		}
		seen[key.String()] = true
		for _, at := range found {
			transitions++
			walkTransition(t, zone, at)
		}
	}
	t.Logf("%d zones, %d transitions that differ", zones, transitions)
	if zones < 590 || transitions < 700 {
		t.Errorf("only %d zones and %d transitions were walked", zones, transitions)
	}
}

func transitionsOf(zone *time.Location, from, to int) []time.Time {
	var all []time.Time
	end := time.Date(to+1, 1, 1, 0, 0, 0, 0, time.UTC)
	for at := time.Date(from, 1, 1, 0, 0, 0, 0, time.UTC); ; {
		_, next := at.In(zone).ZoneBounds()
		if next.IsZero() || !next.Before(end) {
			return all
		}
		all = append(all, next)
		at = next
	}
}

// walkTransition compares from 4 hours before to 28 hours after.
func walkTransition(t *testing.T, zone *time.Location, transition time.Time) {
	from, to := transition.Add(-4*time.Hour), transition.Add(28*time.Hour)
	for _, r := range ruledSpecs {
		s, err := Parse(r.spec, zone.String())
		if err != nil {
			t.Fatal(err)
		}
		var want []time.Time
		furthest := local(from.In(zone)) - 1
		for at := from; !at.After(to); at = at.Add(time.Minute) {
			now := local(at.In(zone))
			first := now
			if !r.elapsing {
				first = furthest + 1
			}
			for minute := first; minute <= now; minute++ {
				if r.matches(minute/60%24, minute%60) {
					want = append(want, at)
					break
				}
			}
			furthest = max(furthest, now)
		}
		at := from.Add(-time.Second)
		for _, slot := range want {
			next, ok := s.Next(at)
			if !ok || !next.Equal(slot) {
				t.Errorf("%s: Next(%s) = %s, want %s", s, at.In(zone).Format(time.RFC3339), next.Format(time.RFC3339), slot.In(zone).Format(time.RFC3339))
				return
			}
			at = next
		}
		if next, _ := s.Next(at); !next.After(to) {
			t.Errorf("%s: Next(%s) = %s, want one after %s", s, at.In(zone).Format(time.RFC3339), next.Format(time.RFC3339), to)
			return
		}
	}
}

// local counts the minutes that a clock shows.
func local(t time.Time) int {
	_, offset := t.Zone()
	return int((t.Unix() + int64(offset)) / 60)
}

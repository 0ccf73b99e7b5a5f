//writ:core

package schedule

import (
	"time"
)

// Schedule is a spec that was read. The zero value has no slots.
type Schedule struct {
	spec     string // as it was given, without a zone
	zone     *time.Location
	fields   fields
	every    time.Duration // of @every; 0: fields count
	elapsing bool          // matches whenever the clock shows one of its times
}

// Spec returns the spec without its zone.
func (s *Schedule) Spec() string { return s.spec }

// Zone returns the zone that the spec is read in.
func (s *Schedule) Zone() *time.Location {
	if s.zone == nil {
		return time.UTC
	}
	return s.zone
}

// String returns the spec with its zone, which Parse reads again.
func (s *Schedule) String() string { return "CRON_TZ=" + s.Zone().String() + " " + s.spec }

const (
	lastYear = 9999
	// longestFold is more than any zone's clock was ever set back.
	longestFold = 48 * 60 * 60
)

// Next returns the first slot after an instant, in the zone of the schedule, and false if there is none before the year
// 10000.
func (s *Schedule) Next(after time.Time) (time.Time, bool) {
	if after.Year() > lastYear {
		return time.Time{}, false
	}
	after = notBeforeFirst(after)
	var slot int64
	ok := true
	switch t := after.Unix(); { // Unix rounds down, also before 1970
	case s.every > 0:
		step := int64(s.every / time.Second)
		slot = (floorDiv(t, step) + 1) * step
	case s.elapsing:
		slot, ok = s.nextShown(t)
	default:
		slot, ok = s.nextReached(t)
	}
	next := time.Unix(slot, 0).In(s.Zone())
	if !ok || next.Year() > lastYear {
		return time.Time{}, false
	}
	return next, true
}

// Latest returns the last slot after an instant and not after another, and false if there is none.
func (s *Schedule) Latest(after, until time.Time) (time.Time, bool) {
	slot, ok := s.Next(after)
	if !ok || slot.After(until) {
		return time.Time{}, false
	}
	// Next does not decrease. The last slot is Next of low, and Next of high is too late.
	low, high := notBeforeFirst(after).Unix(), until.Unix()
	for low+1 < high {
		middle := low + (high-low)/2
		next, ok := s.Next(time.Unix(middle, 0))
		if !ok || next.After(until) {
			high = middle
		} else {
			low, slot = middle, next
		}
	}
	return slot, true
}

// notBeforeFirst keeps what is far in the past from overflowing.
func notBeforeFirst(t time.Time) time.Time {
	if t.Year() < 1 {
		return time.Date(1, time.January, 1, 0, 0, 0, 0, time.UTC)
	}
	return t
}

// segment is a time during which a zone has one offset.
type segment struct {
	start, end int64 // Unix time, the end excluded; the extremes stand for no bound
	offset     int64 // seconds east of UTC
}

const (
	noStart = -1 << 62
	noEnd   = 1 << 62
)

// segmentAt returns the segment that holds an instant.
func (s *Schedule) segmentAt(t int64) segment {
	at := time.Unix(t, 0).In(s.Zone())
	_, offset := at.Zone()
	start, end := at.ZoneBounds()
	seg := segment{start: noStart, end: noEnd, offset: int64(offset)}
	if !start.IsZero() {
		seg.start = start.Unix()
	}
	if !end.IsZero() {
		seg.end = end.Unix()
	}
	return seg
}

// nextShown finds when the local clock next shows a time of the spec.
func (s *Schedule) nextShown(t int64) (int64, bool) {
	for from := t + 1; ; {
		seg := s.segmentAt(from)
		local, ok := s.fields.from(from + seg.offset)
		if !ok {
			return 0, false
		}
		if at := local - seg.offset; at < seg.end {
			return at, true
		}
		from = seg.end
	}
}

// nextReached finds when the local clock next reaches or passes, for the first time, a time of the spec.
func (s *Schedule) nextReached(t int64) (int64, bool) {
	local, ok := s.fields.from(s.furthest(t) + 1)
	if !ok {
		return 0, false
	}
	// No offset is as large as longestFold, so the clock reaches it later than this.
	seg := s.segmentAt(max(t, local-longestFold))
	for {
		if at := local - seg.offset; at < seg.end {
			return max(at, seg.start), true // at the start, if the clock was set over it
		}
		seg = s.segmentAt(seg.end)
	}
}

// furthest returns the latest that the local clock has shown up to an instant.
func (s *Schedule) furthest(t int64) int64 {
	seg := s.segmentAt(t)
	shown := t + seg.offset
	for start := seg.start; start > t-longestFold; start = seg.start {
		seg = s.segmentAt(start - 1)
		shown = max(shown, start-1+seg.offset)
	}
	return shown
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

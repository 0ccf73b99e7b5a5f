//writ:core

package schedule

import (
	"math/bits"
	"time"
)

// fields are the values that a spec admits, one bit for each.
type fields struct {
	second, minute, hour, day, month, weekday uint64

	lastDay    bool // the last day of the month is admitted
	anyDay     bool // the day of month is not restricted
	anyWeekday bool
}

// from returns the first local time that matches and is not before another. Local times are counted in seconds as though
// the zone were UTC.
func (f *fields) from(local int64) (int64, bool) {
	t := time.Unix(local, 0).UTC()
	hour, minute, second, today := nextClock(f, t.Hour(), t.Minute(), t.Second())
	year, month, day := t.Date()
	if !today || !f.admitsDay(year, month, day) {
		year, month, day = f.nextDay(year, month, day)
		hour, minute, second = lowest(f.hour), lowest(f.minute), lowest(f.second)
	}
	if year > lastYear {
		return 0, false
	}
	return time.Date(year, month, day, hour, minute, second, 0, time.UTC).Unix(), true
}

// nextClock finds the first time of day that matches and is not before another. It returns false if there is none.
func nextClock(f *fields, hour, minute, second int) (h, m, s int, ok bool) {
	if admits(f.hour, hour) {
		if admits(f.minute, minute) {
			if s := nextBit(f.second, second); s >= 0 {
				return hour, minute, s, true
			}
		}
		if m := nextBit(f.minute, minute+1); m >= 0 {
			return hour, m, lowest(f.second), true
		}
	}
	if h := nextBit(f.hour, hour+1); h >= 0 {
		return h, lowest(f.minute), lowest(f.second), true
	}
	return 0, 0, 0, false
}

// nextDay finds the first day that matches after another; a year after the last if there is none.
func (f *fields) nextDay(year int, month time.Month, day int) (int, time.Month, int) {
	for day++; year <= lastYear; day = 1 {
		if admits(f.month, int(month)) {
			for last := daysIn(year, month); day <= last; day++ {
				if f.admitsDay(year, month, day) {
					return year, month, day
				}
			}
		}
		if month++; month > time.December {
			year, month = year+1, time.January
		}
	}
	return lastYear + 1, time.January, 1
}

func (f *fields) admitsDay(year int, month time.Month, day int) bool {
	if !admits(f.month, int(month)) {
		return false
	}
	byDay := f.anyDay || admits(f.day, day) || f.lastDay && day == daysIn(year, month)
	byWeekday := f.anyWeekday || admits(f.weekday, weekday(year, month, day))
	if f.anyDay || f.anyWeekday {
		return byDay && byWeekday
	}
	return byDay || byWeekday
}

// possible tells whether any day of any year matches.
func (f *fields) possible() bool {
	if f.anyDay || f.lastDay || !f.anyWeekday {
		return true
	}
	for month := time.January; month <= time.December; month++ {
		if admits(f.month, int(month)) && lowest(f.day) <= daysIn(2000, month) {
			return true
		}
	}
	return false
}

func admits(set uint64, value int) bool { return set>>value&1 == 1 }

// nextBit returns the least value of a set that is not below another, and -1 if there is none.
func nextBit(set uint64, from int) int {
	if set = set >> from << from; set == 0 {
		return -1
	}
	return bits.TrailingZeros64(set)
}

func lowest(set uint64) int { return bits.TrailingZeros64(set) }

func daysIn(year int, month time.Month) int {
	switch month {
	case time.April, time.June, time.September, time.November:
		return 30
	case time.February:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	default:
		return 31
	}
}

func weekday(year int, month time.Month, day int) int {
	return int(time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Weekday())
}

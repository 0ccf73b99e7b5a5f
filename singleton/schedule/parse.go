package schedule

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/writ-io/writ/lease"
)

// MaxSpecBytes bounds a spec with its zone.
const MaxSpecBytes = 256

// Parse reads a spec. The zone is a name of the tz database for specs that do not name one themselves; empty means UTC.
// Errors: INVALID, naming the field.
func Parse(spec, zone string) (*Schedule, error) {
	if len(spec) > MaxSpecBytes {
		return nil, lease.Invalid("spec", fmt.Sprintf("is %d bytes long", len(spec)), fmt.Sprintf("use at most %d", MaxSpecBytes))
	}
	rest := strings.TrimSpace(spec)
	field := "zone"
	if named, isZone := cutZone(rest); isZone {
		name, after, _ := strings.Cut(strings.ReplaceAll(named, "\t", " "), " ")
		if name == "" {
			return nil, lease.Invalid("spec", fmt.Sprintf("%q names an empty zone", spec), "write CRON_TZ=Europe/Berlin and the fields after it")
		}
		field, zone, rest = "spec", name, strings.TrimSpace(after)
	}
	location, err := parseZone(field, zone)
	if err != nil {
		return nil, err
	}
	s := &Schedule{spec: strings.Join(strings.Fields(rest), " "), zone: location}
	if strings.HasPrefix(s.spec, "@") {
		return s.parseDescriptor()
	}
	return s.parseFields()
}

func cutZone(spec string) (rest string, isZone bool) {
	for _, prefix := range [...]string{"CRON_TZ=", "TZ="} {
		if rest, isZone = strings.CutPrefix(spec, prefix); isZone {
			return rest, true
		}
	}
	return spec, false
}

// ParseZone returns a zone of the tz database; the empty name stands for UTC. Errors: INVALID for Local and for what the
// machine does not know.
func ParseZone(name string) (*time.Location, error) { return parseZone("zone", name) }

func parseZone(field, name string) (*time.Location, error) {
	const fix = "name a zone of the tz database, such as Europe/Berlin or UTC; where the machine has no tz database, import time/tzdata"
	switch name {
	case "", "UTC":
		return time.UTC, nil
	case "Local":
		return nil, lease.Invalid(field, "names the zone Local, which is another one on another machine", fix)
	}
	location, err := time.LoadLocation(name)
	if err != nil {
		return nil, lease.Invalid(field, fmt.Sprintf("names the unknown zone %q", name), fix)
	}
	return location, nil
}

func (s *Schedule) parseDescriptor() (*Schedule, error) {
	expanded := map[string]string{
		"@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
		"@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
	}
	if text, ok := strings.CutPrefix(s.spec, "@every "); ok {
		every, err := time.ParseDuration(text)
		if err != nil || every < time.Second || every%time.Second != 0 {
			return nil, lease.Invalid("spec", fmt.Sprintf("@every has the duration %q", text),
				"use one of whole seconds and at least 1s, such as @every 1h30m")
		}
		s.every = every
		return s, nil
	}
	text, ok := expanded[s.spec]
	if !ok {
		return nil, lease.Invalid("spec", fmt.Sprintf("holds the unknown word %q", s.spec),
			"use @yearly, @monthly, @weekly, @daily, @hourly, @every 90s, or five or six fields")
	}
	expansion := &Schedule{spec: text, zone: s.zone}
	if _, err := expansion.parseFields(); err != nil {
		return nil, err
	}
	expansion.spec = s.spec
	return expansion, nil
}

// fieldRule says what one field of a spec may hold.
type fieldRule struct {
	name     string
	min, max int
	names    []string // of the values from min on
}

var (
	secondRule  = fieldRule{name: "second", min: 0, max: 59}
	minuteRule  = fieldRule{name: "minute", min: 0, max: 59}
	hourRule    = fieldRule{name: "hour", min: 0, max: 23}
	dayRule     = fieldRule{name: "day of month", min: 1, max: 31}
	monthRule   = fieldRule{name: "month", min: 1, max: 12, names: strings.Fields("JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC")}
	weekdayRule = fieldRule{name: "day of week", min: 0, max: 7, names: strings.Fields("SUN MON TUE WED THU FRI SAT")}
)

func (s *Schedule) parseFields() (*Schedule, error) {
	texts := strings.Fields(s.spec)
	if len(texts) == 5 {
		texts = append([]string{"0"}, texts...)
	}
	if len(texts) != 6 {
		return nil, lease.Invalid("spec", fmt.Sprintf("%q has %d fields", s.spec, len(texts)),
			"use five (minute hour day month weekday), or six with the second first")
	}
	f := &s.fields
	texts[3], f.lastDay = cutLast(texts[3])
	for i, target := range []struct {
		rule fieldRule
		set  *uint64
		any  *bool
	}{
		{secondRule, &f.second, nil}, {minuteRule, &f.minute, nil}, {hourRule, &f.hour, nil},
		{dayRule, &f.day, &f.anyDay}, {monthRule, &f.month, nil}, {weekdayRule, &f.weekday, &f.anyWeekday},
	} {
		if i == 3 && texts[i] == "" && f.lastDay {
			continue // L alone
		}
		set, unrestricted, err := target.rule.parse(texts[i])
		if err != nil {
			return nil, err
		}
		*target.set = set
		if target.any != nil {
			*target.any = unrestricted
		}
	}
	f.weekday |= f.weekday >> 7 & 1 // 7 is Sunday too
	s.elapsing = f.hour == 1<<24-1
	if !f.possible() {
		return nil, lease.Invalid("day of month", fmt.Sprintf("of %q is in none of its months", s.spec),
			"name a day that one of the months has, or L for the last")
	}
	return s, nil
}

// cutLast takes L out of a day of month.
func cutLast(text string) (rest string, last bool) {
	var kept []string
	for item := range strings.SplitSeq(text, ",") {
		if item == "L" || item == "l" {
			last = true
			continue
		}
		kept = append(kept, item)
	}
	return strings.Join(kept, ","), last
}

// parse reads a field. It also tells whether it holds every value and says so.
func (r fieldRule) parse(text string) (set uint64, unrestricted bool, err error) {
	for item := range strings.SplitSeq(text, ",") {
		span, stepText, stepped := strings.Cut(item, "/")
		step := 1
		if stepped {
			step, err = r.number(stepText, 1, r.max, "step", nil)
			if err != nil {
				return 0, false, err
			}
		}
		low, high := r.min, r.last()
		switch span {
		case "*", "?":
			unrestricted = unrestricted || step == 1
		default:
			if low, high, err = r.span(span, stepped); err != nil {
				return 0, false, err
			}
		}
		for v := low; v <= high; v += step {
			set |= 1 << v
		}
	}
	return set, unrestricted, nil
}

// last is the greatest value that * means: Sunday is met once only.
func (r fieldRule) last() int {
	if r.name == weekdayRule.name {
		return 6
	}
	return r.max
}

// span reads a value or a range. A value with a step goes on to the end.
func (r fieldRule) span(text string, stepped bool) (low, high int, err error) {
	lowText, highText, isRange := strings.Cut(text, "-")
	if low, err = r.number(lowText, r.min, r.max, "value", r.names); err != nil {
		return 0, 0, err
	}
	switch {
	case isRange:
		if high, err = r.number(highText, r.min, r.max, "value", r.names); err != nil {
			return 0, 0, err
		}
	case stepped:
		high = max(low, r.last())
	default:
		high = low
	}
	if high < low {
		return 0, 0, lease.Invalid(r.name, fmt.Sprintf("holds the range %q, which ends before it starts", text), "write it as two ranges, such as FRI-SAT,SUN-MON")
	}
	return low, high, nil
}

func (r fieldRule) number(text string, least, most int, what string, names []string) (int, error) {
	for i, name := range names {
		if strings.EqualFold(name, text) {
			return r.min + i, nil
		}
	}
	// Atoi alone would take signs.
	n, err := strconv.Atoi(text)
	if err != nil || text[0] == '+' || text[0] == '-' || n < least || n > most {
		fix := fmt.Sprintf("use a number from %d to %d", least, most)
		if len(names) > 0 {
			fix += fmt.Sprintf(", or a name such as %s", names[0])
		}
		return 0, lease.Invalid(r.name, fmt.Sprintf("holds the %s %q", what, text), fix)
	}
	return n, nil
}

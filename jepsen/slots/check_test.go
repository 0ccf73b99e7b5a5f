package slots

import (
	"slices"
	"testing"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/singleton/cron"
)

func TestJudgeOfSlots(t *testing.T) {
	t.Parallel()
	first := time.Date(2026, time.March, 1, 2, 0, 0, 0, time.UTC)
	row := func(kind string, slot int, run string, token int) Effect {
		at := first.Add(time.Duration(slot) * Every)
		return Effect{Kind: kind, ID: cron.SlotID("job", at), Run: run, Token: fence.Token(token), Attempt: 1, At: at.Add(time.Second)}
	}
	began := func(slot int, run string, token int) Effect { return row(Began, slot, run, token) }
	ended := func(slot int, run string, token int) Effect { return row(Ended, slot, run, token) }
	late := ended(1, "b", 1)
	late.At = late.At.Add(Window + cron.Punctual)
	unasked := ended(1, "b", 1)
	unasked.ID = cron.SlotID("job", first.Add(time.Second))
	foreign := ended(1, "b", 1)
	foreign.ID = cron.SlotID("another", first)
	for name, c := range map[string]struct {
		rows []Effect
		want []Violation
	}{
		"as it should be":                   {[]Effect{began(0, "a", 1), ended(0, "a", 1), began(1, "b", 1), ended(1, "b", 1)}, nil},
		"a holder died, another ran it":     {[]Effect{began(0, "a", 1), began(0, "b", 2), ended(0, "b", 2), began(1, "c", 2), ended(1, "c", 2)}, nil},
		"caught up":                         {[]Effect{began(1, "a", 1), began(0, "b", 2), ended(0, "b", 2), began(1, "c", 2), ended(1, "c", 2)}, nil},
		"a slot is missing":                 {[]Effect{began(1, "b", 1), ended(1, "b", 1)}, []Violation{Missed}},
		"begun and never finished":          {[]Effect{began(0, "a", 1), ended(0, "a", 1), began(1, "b", 1)}, []Violation{Missed}},
		"run again though it had an effect": {[]Effect{began(0, "a", 1), ended(0, "a", 1), began(0, "b", 2), ended(0, "b", 2), began(1, "c", 2), ended(1, "c", 2)}, []Violation{Twice}},
		"late":                              {[]Effect{began(0, "a", 1), ended(0, "a", 1), began(1, "b", 1), late}, []Violation{Late}},
		"a zombie comes late": {
			[]Effect{began(0, "a", 1), began(0, "b", 2), ended(0, "b", 2), ended(0, "a", 1), began(1, "c", 2), ended(1, "c", 2)},
			[]Violation{Stale, Overlap, Twice},
		},
		"two at a time": {
			[]Effect{began(0, "a", 1), began(1, "b", 2), ended(1, "b", 2), ended(0, "a", 1)}, []Violation{Stale, Overlap},
		},
		"two at a time under one token": {
			[]Effect{began(0, "a", 1), began(1, "b", 1), ended(0, "a", 1), ended(1, "b", 1)}, []Violation{Overlap, Overlap},
		},
		"a zombie begins late": {
			[]Effect{began(0, "b", 2), began(0, "a", 1), ended(0, "b", 2), began(1, "c", 2), ended(1, "c", 2)},
			[]Violation{Stale, Overlap},
		},
		"no slot":        {[]Effect{began(0, "a", 1), ended(0, "a", 1), unasked}, []Violation{Overlap, Unasked, Missed}},
		"another's slot": {[]Effect{began(0, "a", 1), ended(0, "a", 1), foreign}, []Violation{Overlap, Unasked, Missed}},
		"nothing":        {nil, []Violation{Missed, Missed}},
	} {
		var got []Violation
		for _, f := range Check("job", c.rows, first, first.Add(Every)) {
			got = append(got, f.What)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: found %v, want %v", name, got, c.want)
		}
	}
}

package appends_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/jepsen/appends"
)

// script is a history in the making.
type script struct {
	applied  []appends.Applied
	attempts []appends.Attempt
}

func (s *script) try(element string, token fence.Token, outcome appends.Outcome) {
	s.attempts = append(s.attempts, appends.Attempt{Element: element, Token: token, Outcome: outcome})
}

// write tries and applies an append to a page that was read, and returns what was written.
func (s *script) write(read appends.Page, element string, token fence.Token, outcome appends.Outcome) appends.Page {
	s.try(element, token, outcome)
	return s.apply(read, element, token)
}

func (s *script) apply(read appends.Page, element string, token fence.Token) appends.Page {
	page := read.Append(element)
	s.applied = append(s.applied, appends.Applied{Page: page, Token: token, Presented: token})
	return page
}

func (s *script) kinds() []appends.Kind {
	var kinds []appends.Kind
	for _, v := range appends.Check(s.applied, s.attempts) {
		kinds = append(kinds, v.Kind)
	}
	return kinds
}

func TestCheck(t *testing.T) {
	var empty appends.Page
	for name, c := range map[string]struct {
		do   func(s *script)
		want []appends.Kind
	}{
		"nothing": {func(*script) {}, nil},
		"one after the other": {func(s *script) {
			p := s.write(empty, "a", 1, appends.Acked)
			p = s.write(p, "b", 1, appends.Acked)
			s.write(p, "c", 2, appends.Acked)
		}, nil},
		"an unknown one that was applied": {func(s *script) {
			p := s.write(empty, "a", 1, appends.Unknown)
			s.write(p, "b", 2, appends.Acked)
		}, nil},
		"an unknown one that was not": {func(s *script) {
			s.try("a", 1, appends.Unknown)
			s.write(empty, "b", 2, appends.Acked)
		}, nil},
		"a stale one": {func(s *script) {
			p := s.write(empty, "a", 2, appends.Acked)
			s.write(p, "b", 1, appends.Unknown)
		}, []appends.Kind{appends.Stale}},
		"a stale one that undoes": {func(s *script) {
			s.write(empty, "a", 2, appends.Acked)
			s.write(empty, "b", 1, appends.Unknown)
		}, []appends.Kind{appends.Lost, appends.Stale, appends.Blind}},
		"a late one before the first of its successor": {func(s *script) {
			s.write(empty, "a", 1, appends.Unknown) // not read by b
			s.write(empty, "b", 2, appends.Acked)
		}, []appends.Kind{appends.Blind}},
		"acknowledged and never applied": {func(s *script) {
			s.try("a", 1, appends.Acked)
		}, []appends.Kind{appends.Lost}},
		"refused and applied": {func(s *script) {
			s.write(empty, "a", 1, appends.Refused)
		}, []appends.Kind{appends.Undone}},
		"applied twice": {func(s *script) {
			p := s.write(empty, "a", 1, appends.Acked)
			s.apply(p, "a", 1)
		}, []appends.Kind{appends.Twice}},
		"from nobody": {func(s *script) {
			s.apply(empty, "a", 1)
		}, []appends.Kind{appends.Foreign}},
		"under another token": {func(s *script) {
			s.try("a", 1, appends.Unknown)
			s.apply(empty, "a", 2)
		}, []appends.Kind{appends.Foreign}},
		"presenting another token": {func(s *script) {
			s.try("a", 1, appends.Unknown)
			s.applied = []appends.Applied{{Page: empty.Append("a"), Token: 1, Presented: 2}}
		}, []appends.Kind{appends.Foreign}},
		"an empty page": {func(s *script) {
			s.applied = []appends.Applied{{Token: 1}}
		}, []appends.Kind{appends.Foreign, appends.Blind}},
	} {
		t.Run(name, func(t *testing.T) {
			var s script
			c.do(&s)
			if got := s.kinds(); !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(c.want))) {
				t.Errorf("found %v, want %v", appends.Check(s.applied, s.attempts), c.want)
			}
		})
	}
}

// A stale write at the border of two pages takes whole pages with it.
func TestStaleWriteOfAnEarlierPage(t *testing.T) {
	var s script
	var page, old appends.Page
	for i := range 2*appends.PageSize + 3 {
		if i == appends.PageSize-1 {
			old = page
		}
		page = s.write(page, fmt.Sprint(i), fence.Token(2), appends.Acked)
	}
	if found := s.kinds(); found != nil {
		t.Fatalf("a long list: %v", found)
	}
	s.write(old, "late", 1, appends.Unknown)
	found := s.kinds()
	lost := 0
	for _, kind := range found {
		if kind == appends.Lost {
			lost++
		}
	}
	if want := appends.PageSize + 4; lost != want || !slices.Contains(found, appends.Stale) || !slices.Contains(found, appends.Blind) {
		t.Errorf("%d lost, want %d: %v", lost, want, found)
	}
}

// Whatever order holders write in, as long as each reads what is there and nobody comes late, the judge finds nothing; and
// if any one write but the last is repeated at the end, it does.
func TestLateWritesAreFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s script
		var page appends.Page
		token := fence.Token(1)
		var reads []appends.Page
		for i := range rapid.IntRange(2, 3*appends.PageSize).Draw(t, "writes") {
			if rapid.IntRange(0, 3).Draw(t, "hand over") == 0 {
				token++
			}
			element := fmt.Sprint(i)
			switch rapid.IntRange(0, 4).Draw(t, "fate") {
			case 0:
				s.try(element, token, appends.Refused)
			case 1:
				s.try(element, token, appends.Unknown)
				token++
			default:
				reads = append(reads, page)
				page = s.write(page, element, token, appends.Acked)
			}
		}
		if found := s.kinds(); found != nil {
			t.Fatalf("a sound history: %v", appends.Check(s.applied, s.attempts))
		}
		if len(reads) < 2 {
			return
		}
		i := rapid.IntRange(0, len(reads)-2).Draw(t, "late")
		s.write(reads[i], "late", s.applied[i].Token, appends.Unknown)
		if s.kinds() == nil {
			t.Fatalf("write %d came late unnoticed", i)
		}
	})
}

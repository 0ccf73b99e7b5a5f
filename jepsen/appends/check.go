package appends

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/writ-io/writ/fence"
)

// PageSize is how many elements a page holds.
const PageSize = 64

// Page is the end of the list as it is read and written.
type Page struct {
	Number   int
	Elements []string
}

// Append returns the page to be written for an element. It shares nothing with p.
func (p Page) Append(element string) Page {
	if len(p.Elements) >= PageSize {
		return Page{p.Number + 1, []string{element}}
	}
	return Page{p.Number, append(slices.Clone(p.Elements), element)}
}

// Applied is a write as the storage applied it.
type Applied struct {
	Page Page
	// Token is the one that the writer said it wrote under.
	Token fence.Token
	// Presented is the one of the credential that came with the write; 0: none came.
	Presented fence.Token
}

// element is the one that was appended.
func (a Applied) element() string {
	if len(a.Page.Elements) == 0 {
		return ""
	}
	return a.Page.Elements[len(a.Page.Elements)-1]
}

// Outcome is what a writer knows of an attempt.
type Outcome uint8

// The outcomes. The zero value is unknown, which is what an attempt is that nobody heard the end of.
const (
	Unknown Outcome = iota
	// Acked: it was applied.
	Acked
	// Refused: it was not, and will not be.
	Refused
)

func (o Outcome) String() string {
	switch o {
	case Unknown:
		return "unknown"
	case Acked:
		return "acknowledged"
	case Refused:
		return "refused"
	}
	return fmt.Sprintf("outcome %d", o)
}

// Attempt is an append as its writer knows it.
type Attempt struct {
	Element string
	Token   fence.Token
	Outcome Outcome
}

// Kind is a promise that was broken.
type Kind string

// The kinds.
const (
	// Stale: S2.
	Stale Kind = "S2: applied under an older token than a write before"
	// Lost: S3.
	Lost Kind = "S3: acknowledged, but not in the list"
	// Blind: not computed from what it replaced.
	Blind Kind = "computed from another list than the one that it replaced"
	// Twice: applied more than once.
	Twice Kind = "applied twice"
	// Undone: refused, but applied.
	Undone Kind = "refused, but applied"
	// Foreign: nobody tried it, or not so.
	Foreign Kind = "applied as nobody tried it"
)

// Violation is one finding.
type Violation struct {
	Kind Kind
	// Seq is the number of the write that shows it, from 0; that of all writes if the end does.
	Seq    int
	Detail string
}

func (v Violation) String() string { return fmt.Sprintf("write %d: %s: %s", v.Seq, v.Kind, v.Detail) }

// judge goes through the writes.
type judge struct {
	attempts map[string]Attempt
	pages    []Page // the list; the numbers are those of the pages
	applied  map[string]int
	highest  fence.Token
	found    []Violation
}

// Check judges a history. Nil is a valid one.
func Check(applied []Applied, attempts []Attempt) []Violation {
	j := &judge{attempts: make(map[string]Attempt), pages: []Page{{}}, applied: make(map[string]int)}
	for _, a := range attempts {
		j.attempts[a.Element] = a
	}
	for seq, write := range applied {
		j.apply(seq, write)
	}
	j.end(len(applied))
	return j.found
}

func (j *judge) report(seq int, kind Kind, format string, args ...any) {
	j.found = append(j.found, Violation{kind, seq, fmt.Sprintf(format, args...)})
}

func (j *judge) apply(seq int, write Applied) {
	element := write.element()
	attempt, tried := j.attempts[element]
	switch {
	case !tried:
		j.report(seq, Foreign, "%q under %v", element, write.Token)
	case attempt.Token != write.Token || write.Presented != 0 && write.Presented != write.Token:
		j.report(seq, Foreign, "%q under %v, presenting %v, and tried under %v", element, write.Token, write.Presented, attempt.Token)
	case attempt.Outcome == Refused:
		j.report(seq, Undone, "%q under %v", element, write.Token)
	}
	if before, twice := j.applied[element]; twice {
		j.report(seq, Twice, "%q, first as write %d", element, before)
	}
	j.applied[element] = seq
	if write.Token < j.highest {
		j.report(seq, Stale, "%q under %v, after %v", element, write.Token, j.highest)
	}
	j.highest = max(j.highest, write.Token)
	last := j.pages[len(j.pages)-1]
	if want := last.Append(element); write.Page.Number != want.Number || !slices.Equal(write.Page.Elements, want.Elements) {
		j.report(seq, Blind, "%q under %v wrote %s, and the list ended with %s", element, write.Token, write.Page, last)
	}
	j.replace(write.Page)
}

// replace puts a page in its place.
func (j *judge) replace(p Page) {
	for len(j.pages) <= p.Number {
		j.pages = append(j.pages, Page{Number: len(j.pages)})
	}
	j.pages = j.pages[:p.Number+1]
	j.pages[p.Number] = p
}

func (j *judge) end(seq int) {
	there := make(map[string]bool)
	for _, p := range j.pages {
		for _, element := range p.Elements {
			there[element] = true
		}
	}
	for _, a := range j.attempts {
		if a.Outcome != Acked || there[a.Element] {
			continue
		}
		if when, applied := j.applied[a.Element]; applied {
			j.report(when, Lost, "%q under %v", a.Element, a.Token)
		} else {
			j.report(seq, Lost, "%q under %v, which was never applied", a.Element, a.Token)
		}
	}
	slices.SortFunc(j.found, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(a.Seq, b.Seq), strings.Compare(string(a.Kind), string(b.Kind)), strings.Compare(a.Detail, b.Detail))
	})
}

func (p Page) String() string {
	if len(p.Elements) == 0 {
		return fmt.Sprintf("page %d, empty", p.Number)
	}
	return fmt.Sprintf("page %d, %d elements to %q", p.Number, len(p.Elements), p.Elements[len(p.Elements)-1])
}

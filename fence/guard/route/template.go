package route

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxResourceBytes is the longest name of a resource.
const maxResourceBytes = 512

// template makes the name of a resource of the segments of a path.
type template struct {
	// parts alternate: text, and then the number of the segment that follows it; 0 at the end.
	parts []part
	// highest segment that is needed.
	highest int
	// reverse finds the segments in a name.
	reverse *regexp.Regexp
}

type part struct {
	text    string
	segment int
}

func parseTemplate(s string) (*template, error) {
	t := &template{}
	pattern := "^"
	for rest := s; ; {
		text, after, found := strings.Cut(rest, "{")
		if strings.Contains(text, "}") {
			return nil, fmt.Errorf("%q has a } without a {", s)
		}
		pattern += regexp.QuoteMeta(text)
		if !found {
			t.parts = append(t.parts, part{text: text})
			break
		}
		if len(after) < 2 || after[0] < '1' || after[0] > '9' || after[1] != '}' {
			return nil, fmt.Errorf("%q has a { that is not one of {1} to {9}", s)
		}
		segment := int(after[0] - '0')
		t.parts = append(t.parts, part{text, segment})
		t.highest = max(t.highest, segment)
		pattern += "([^/]+)"
		rest = after[2:]
	}
	// With some segments it has to make a name.
	if problem := nameProblem(t.fill(func(int) string { return "x" })); problem != "" {
		return nil, errors.New(problem)
	}
	if strings.HasSuffix(s, "*") {
		return nil, fmt.Errorf("%q ends in an asterisk, which is for prefixes", s)
	}
	var err error
	if t.reverse, err = regexp.Compile(pattern + "$"); err != nil {
		return nil, err
	}
	return t, nil
}

// fixed reports whether it is a plain name.
func (t *template) fixed() bool { return t.highest == 0 }

// pattern is what a guard enrols for: the name, or the prefix of all names with an asterisk.
func (t *template) pattern() string {
	if t.fixed() {
		return t.parts[0].text
	}
	return t.parts[0].text + "*"
}

func (t *template) fill(segment func(int) string) string {
	if t.fixed() {
		return t.parts[0].text
	}
	var b strings.Builder
	for _, p := range t.parts {
		b.WriteString(p.text)
		if p.segment > 0 {
			b.WriteString(segment(p.segment))
		}
	}
	return b.String()
}

// expand fills in the segments of what follows the prefix in a path.
func (t *template) expand(rest string) (name string, missing int) {
	if t.fixed() {
		return t.parts[0].text, 0
	}
	name = t.fill(func(n int) string {
		s := nthSegment(rest, n)
		if s == "" && missing == 0 {
			missing = n
		}
		return s
	})
	return name, missing
}

// nthSegment counts from 1; "" is none.
func nthSegment(rest string, n int) string {
	rest = strings.TrimPrefix(rest, "/")
	for ; n > 1; n-- {
		_, after, found := strings.Cut(rest, "/")
		if !found {
			return ""
		}
		rest = after
	}
	segment, _, _ := strings.Cut(rest, "/")
	return segment
}

// segments finds what has to stand in a path for name to come out: the inverse of expand.
func (t *template) segments(name string) ([]string, bool) {
	found := t.reverse.FindStringSubmatch(name)
	if found == nil {
		return nil, false
	}
	segments := make([]string, t.highest)
	for i := range segments {
		segments[i] = "x" // one that the name does not depend on
	}
	for i, p := range t.parts {
		if p.segment > 0 {
			segments[p.segment-1] = found[i+1]
		}
	}
	// A segment that occurs twice may have been found with two values.
	return segments, t.fill(func(n int) string { return segments[n-1] }) == name
}

// nameProblem says what is wrong with the name of a resource; the rules are those of the quorum.
func nameProblem(name string) string {
	switch {
	case name == "":
		return "is empty"
	case len(name) > maxResourceBytes:
		return fmt.Sprintf("makes a name of %d bytes", len(name))
	case !utf8.ValidString(name):
		return "is not valid UTF-8"
	case name[0] == '/' || name[len(name)-1] == '/' || strings.Contains(name, "//"):
		return fmt.Sprintf("%q has an empty segment", name)
	}
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return fmt.Sprintf("%q has the unprintable character %U", name, r)
		}
	}
	for segment := range strings.SplitSeq(name, "/") {
		if segment == "." || segment == ".." {
			return fmt.Sprintf("%q has the segment %q", name, segment)
		}
	}
	return ""
}

package lease_test

import (
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/writ-io/writ/lease"
)

// FuzzParseResource: a name is accepted unchanged if it is what the documentation says, and refused with a fix if not.
func FuzzParseResource(f *testing.F) {
	for _, name := range []string{
		"billing/nightly", "orders-db", "", "/", "a/", "/a", "a//b", ".", "a/..", "...", "a b", "a\u00a0b", "a\u00adb", "a\u200bb", "a\u202eb", "a\x7fb",
		"a\nb", "a\x00b", "a\xffb", "夜/ночь", "e\u0301", strings.Repeat("x", 512), strings.Repeat("x", 513), strings.Repeat("ä", 256),
	} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got, err := lease.ParseResource(name)
		if usable := usableName(name); usable != (err == nil) {
			t.Fatalf("%q: %v, expected it to be usable: %v", name, err, usable)
		}
		if err == nil {
			if string(got) != name {
				t.Fatalf("%q became %q", name, got)
			}
			return
		}
		var e *lease.Error
		if !errors.As(err, &e) || !errors.Is(err, lease.ErrInvalid) || e.Field != "resource" || e.Fix == "" {
			t.Fatalf("%q: error %#v", name, err)
		}
		if !utf8.ValidString(err.Error()) || strings.ContainsFunc(err.Error(), unicode.IsControl) {
			t.Fatalf("%q: the error itself is unprintable: %q", name, err)
		}
	})
}

func usableName(name string) bool {
	if len(name) > 512 || !utf8.ValidString(name) {
		return false
	}
	for _, segment := range strings.Split(name, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return false
		}
	}
	return !strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) })
}

func TestHoldersShowWhatTheyHave(t *testing.T) {
	for want, h := range map[string]lease.Holder{
		"":          {},
		"app":       {Principal: "app"},
		"app#1":     {Principal: "app", Instance: "1"},
		"app@eu":    {Principal: "app", Region: "eu"},
		"app#1@eu":  {Principal: "app", Instance: "1", Region: "eu"},
		"#1@eu-low": {Instance: "1", Region: "eu-low"},
	} {
		if got := h.String(); got != want {
			t.Errorf("%#v shows as %q, want %q", h, got, want)
		}
	}
}

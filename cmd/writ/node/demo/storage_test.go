package demo

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-io/writ/fence"
)

func token(t *testing.T, text string) fence.Token {
	t.Helper()
	parsed, err := fence.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestStorageComparesTokens(t *testing.T) {
	s, err := newStorage(filepath.Join(t.TempDir(), "ledger"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	for _, c := range []struct {
		token, floor string
		taken        bool
	}{
		{"1.7", "1.7", true}, {"1.7", "1.7", true}, {"1.6", "1.7", false}, {"1.9", "1.9", true}, {"1.8", "1.9", false},
		{"2.1", "2.1", true}, {"1.10", "2.1", false},
	} {
		got, err := put(t.Context(), s.url(), token(t, c.token), "text of "+c.token)
		if err != nil {
			t.Fatal(err)
		}
		if want := (answer{c.taken, token(t, c.floor)}); got != want {
			t.Errorf("a write under %s got %v, want %v", c.token, got, want)
		}
	}
	lines, err := s.lines()
	if err != nil || len(lines) != 4 || s.refusals() != 3 {
		t.Errorf("the file holds %v (%v), %d refused", lines, err, s.refusals())
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url(), strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a write without a token got %s", resp.Status)
	}
}

func TestTableOutsideOfATerminal(t *testing.T) {
	var out strings.Builder
	err := writeTable(&out, []result{{"walk", "a step", "two steps", true}, {"jump", "à", "–", false}})
	if err != nil {
		t.Fatal(err)
	}
	const want = "   step  expected  seen       ok\n" +
		"1  walk  a step    two steps  yes\n" +
		"2  jump  à         –          NO\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestProcessHasItsOwnQuorum(t *testing.T) {
	got := withoutWrit([]string{"HOME=/", "WRIT_ENDPOINTS=x", "WRIT_KEY=", "WRITER=me"})
	if strings.Join(got, " ") != "HOME=/ WRITER=me" {
		t.Errorf("got %q", got)
	}
}

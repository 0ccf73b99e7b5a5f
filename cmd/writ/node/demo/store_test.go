package demo

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/writ-io/writ/fence"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestStoreTakesEveryLine(t *testing.T) {
	s, err := newStore(filepath.Join(t.TempDir(), "ledger"))
	must(t, err)
	defer func() { must(t, s.close()) }()
	ask := func(method, body string) int {
		req, err := http.NewRequestWithContext(t.Context(), method, s.url(), strings.NewReader(body))
		must(t, err)
		req.Header.Set(fence.HeaderToken, "1.1") // of which it knows nothing
		resp, err := do(req)
		must(t, err)
		defer func() { _ = resp.Body.Close() }()
		_, err = io.Copy(io.Discard, resp.Body)
		must(t, err)
		return resp.StatusCode
	}
	for _, c := range []struct {
		method, body string
		want         int
	}{
		{"POST", "a line", 200}, {"POST", "another, with \"quotes\"", 200}, {"POST", "a line", 200},
		{"POST", "", 400}, {"POST", "two\nlines", 400}, {"POST", "a\r", 400}, {"POST", strings.Repeat("x", maxLineBytes+1), 400},
		{"PUT", "a line", 405}, {"DELETE", "", 405},
	} {
		if got := ask(c.method, c.body); got != c.want {
			t.Errorf("%s %.20q is answered %d, want %d", c.method, c.body, got, c.want)
		}
	}
	lines, err := readLines(t.Context(), s.url())
	must(t, err)
	if want := []string{"a line", "another, with \"quotes\"", "a line"}; !slices.Equal(lines, want) {
		t.Errorf("it holds %q, want %q", lines, want)
	}
}

func TestAnswersOfAGuard(t *testing.T) {
	stale := fence.StaleError{Resource: resource, Have: 1<<48 | 1, Floor: 1<<48 | 2}
	elsewhere := stale
	elsewhere.Resource = "another"
	for _, c := range []struct {
		name    string
		respond func(http.ResponseWriter)
		want    answer
		text    string
		wrong   string // in the error
	}{
		{"taken", func(w http.ResponseWriter) { w.WriteHeader(200) }, answer{Taken: true}, "taken", ""},
		{
			"stale", func(w http.ResponseWriter) { fence.WriteProblem(w, &stale) },
			answer{How: "412 STALE_TOKEN", Have: stale.Have, Floor: stale.Floor}, "412 STALE_TOKEN: 1.1 is below the floor 1.2", "",
		},
		{"stale elsewhere", func(w http.ResponseWriter) { fence.WriteProblem(w, &elsewhere) }, answer{}, "", `"another"`},
		{"unavailable", func(w http.ResponseWriter) {
			fence.WriteProblem(w, &fence.UnavailableError{Resource: resource, Obstacle: fence.NotSeeded})
		}, answer{}, "", "503 UNAVAILABLE"},
		{"no guard", func(w http.ResponseWriter) { http.Error(w, "full", http.StatusInsufficientStorage) }, answer{}, "", `507 Insufficient Storage: "full\n"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if r.Header.Get(fence.HeaderWrit) != "a.b.c" || string(body) != "the line" {
					t.Errorf("got the writ %q and %q", r.Header.Get(fence.HeaderWrit), body)
				}
				c.respond(w)
			}))
			defer server.Close()
			got, err := post(t.Context(), server.URL, "a.b.c", "the line")
			switch {
			case c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)):
				t.Errorf("got %v, %v, want an error with %q", got, err, c.wrong)
			case c.wrong == "" && (err != nil || got != c.want || got.String() != c.text):
				t.Errorf("got %v, %v, want %v", got, err, c.want)
			}
			if stale := got.stale(); err == nil && stale == c.want.Taken {
				t.Errorf("%v counts as stale: %v", got, stale)
			}
		})
	}
}

func TestWhatAStorageMustHold(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines []string
		wrong string
	}{
		{"what it took", []string{"h1", "h2", "r1"}, ""},
		{"a refused line", []string{"h1", "h2", "r1", "h3"}, `"h3" is among them, which was refused`},
		{"a refused line in place of another", []string{"h1", "h2", "h3"}, `"h3" is among them`},
		{"too few", []string{"h1", "h2"}, "taken were 3"},
		{"too many", []string{"h1", "h2", "r1", "x"}, "taken were 3"},
		{"another order", []string{"h1", "r1", "h2"}, "taken were 3"},
		{"nothing", nil, "taken were 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			told := newTeller(Stage{Out: &out})
			told.taken, told.late = []string{"h1", "h2", "r1"}, outcome{Line: "h3"}
			seen, err := told.compare("line", c.lines)
			if fmt.Sprint(err) != "<nil>" != (c.wrong != "") || c.wrong != "" && !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("%q: %v, want %q", seen, err, c.wrong)
			}
			if strings.Count(out.String(), "   | ") != len(c.lines) {
				t.Errorf("it does not show all lines: %s", out.String())
			}
		})
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

func TestProcessesHaveTheirOwnQuorumAndDatabase(t *testing.T) {
	env := []string{"HOME=/", "WRIT_ENDPOINTS=x", "WRIT_KEY=", "WRITER=me", "PGHOST=elsewhere", "PATH=/bin"}
	if got := strings.Join(withoutPostgres(withoutWrit(env)), " "); got != "HOME=/ WRITER=me PATH=/bin" {
		t.Errorf("got %q", got)
	}
}

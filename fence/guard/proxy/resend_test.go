package proxy_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard/proxy"
	"github.com/writ-io/writ/fence/guard/route"
)

// An upstream that answers one request on a connection, reads the next and closes: what net/http takes for a kept
// connection that timed out.
func TestNothingIsSentTwice(t *testing.T) {
	for _, c := range []struct{ method, header string }{
		{"POST", "Idempotency-Key: k\nContent-Length: 0\n\n"},
		{"POST", "X-Idempotency-Key: k\nContent-Length: 0\n\n"},
		{"PUT", "idempotency-key: k\n\n"},
		{"POST", "Idempotency-Key: k\nContent-Length: 2\n\nhi"},
		{"POST", "Content-Length: 2\n\nhi"},
		{"DELETE", "\n"},
		{"GET", "\n"}, // checked by the route
		{"HEAD", "\n"},
		{"OPTIONS", "\n"},
		{"GET", "Content-Length: 0\n\n"},
		{"GET", "Idempotency-Key: k\n\n"},
	} {
		t.Run(c.method+" "+strings.ReplaceAll(c.header, "\n", " "), func(t *testing.T) {
			key := make(chan string, 10)
			s := scripted(t, func(s *stage) {
				if s.number > 0 {
					// Whoever comes again would be answered.
					s.whole()
					s.say("HTTP/1.1 200 OK\nContent-Length: 0\n\n")
					return
				}
				s.whole()
				s.say("HTTP/1.1 200 OK\nContent-Length: 0\n\n")
				r, _ := s.whole()
				key <- r.Header.Get("Idempotency-Key") + r.Header.Get("X-Idempotency-Key")
			})
			w := newWorld(t, s.url(), func(c *proxy.Config) { c.Routes[0].Reads = route.ReadsCheck })
			caller := w.dial()
			caller.send(put + "Content-Length: 2\n\nhi")
			if resp, text := caller.answer(); resp.StatusCode != 200 {
				t.Fatalf("%d %s", resp.StatusCode, text)
			}
			w.ends(fence.Finished)
			caller.send("%s /second HTTP/1.1\nHost: h\nWrit-Token: 1.5\n%s", c.method, c.header)
			if resp := caller.head(c.method); resp.StatusCode != 502 {
				t.Errorf("status %d", resp.StatusCode)
			}
			w.ends(fence.Broken)
			if got, want := s.seen(), []string{"PUT /x", c.method + " /second"}; !slices.Equal(got, want) {
				t.Errorf("the upstream saw %q, want %q", got, want)
			}
			if got := <-key; strings.Contains(strings.ToLower(c.header), "idempotency-key") != (got == "k") {
				t.Errorf("key %q", got)
			}
		})
	}
}

// A kept connection that the upstream has closed meanwhile: nothing was sent over it, so another one is harmless.
func TestClosedKeptConnections(t *testing.T) {
	for _, request := range []string{"DELETE /x HTTP/1.1\nHost: h\nWrit-Token: 1.5\n\n", put + "Content-Length: 2\n\nhi"} {
		for round := range 20 {
			s := scripted(t, func(s *stage) {
				if _, body := s.whole(); body != "" || s.number > 0 {
					s.say("HTTP/1.1 200 OK\nContent-Length: 0\n\n")
				}
			})
			w := newWorld(t, s.url())
			caller := w.dial()
			caller.send(put + "Content-Length: 5\n\nfirst")
			if resp, text := caller.answer(); resp.StatusCode != 200 {
				t.Fatalf("%d %s", resp.StatusCode, text)
			}
			w.ends(fence.Finished)
			caller.send("%s", request) // races with the upstream closing
			resp, text := caller.answer()
			w.begun()
			outcome := <-w.keeper.outcomes
			n := len(s.seen())
			reason := ""
			if resp.StatusCode != 200 {
				reason = problem(t, text).Reason
			}
			switch got := strings.Join(strings.Fields(fmt.Sprint(resp.StatusCode, " ", reason, " ", name(outcome), " ", n)), " "); got {
			case "200 finished 2": // another connection
			case "502 UPSTREAM_UNREACHABLE finished 1", "502 UPSTREAM_BROKEN broken 1": // it depends on who was first
			default:
				t.Fatalf("round %d: %s", round, got)
			}
		}
	}
}

// What only passes may be sent again, as net/http does.
func TestReadsThatPassAreSentAgain(t *testing.T) {
	s := scripted(t, func(s *stage) {
		for s.number > 0 || len(s.seen()) == 0 {
			if r, _ := s.whole(); r == nil {
				return
			}
			s.say("HTTP/1.1 200 OK\nContent-Length: 2\n\nok")
		}
		s.whole()
	})
	w := newWorld(t, s.url())
	for range 2 {
		resp, err := http.Get(w.server.URL + "/read")
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
		resp.Body.Close()
	}
	if got := s.seen(); len(got) != 3 {
		t.Errorf("the upstream saw %q", got)
	}
}

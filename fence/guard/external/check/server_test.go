package check_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard/external"
	"github.com/writ-io/writ/fence/guard/external/check"
	"github.com/writ-io/writ/fence/guard/external/externaltest"
)

const resource = "orders"

// service is a server on a real socket, and a plain HTTP client of it.
type service struct {
	*check.Server
	gate *externaltest.Gate
	path string
	http *http.Client
}

// start runs a server. change may alter its configuration.
func start(t testing.TB, change func(*check.Config)) *service {
	t.Helper()
	dir, err := os.MkdirTemp("", "writ") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &service{gate: externaltest.New(t, resource), path: filepath.Join(dir, "check.sock")}
	config := check.Config{Admitter: s.gate, TrustTokens: true, Slack: time.Hour}
	if change != nil {
		change(&config)
	}
	if s.Server, err = check.New(config); err != nil {
		t.Fatal(err)
	}
	listener, err := external.ListenUnix(s.path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := s.Serve(listener); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", s.path)
	}}
	s.http = &http.Client{Transport: transport}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := s.Close(context.Background()); err != nil {
			t.Errorf("close: %v", err)
		}
		serving.Wait()
	})
	return s
}

// reply is an answer, which the end of the test closes.
type reply struct {
	*http.Response
}

func (s *service) post(t *testing.T, path, body string) reply {
	t.Helper()
	resp, err := s.http.Post("http://guard"+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return reply{resp}
}

type answer struct {
	Event, Ticket, Token string
	ValidMS              int64 `json:"valid_ms"`
}

func decode(t *testing.T, r io.Reader) (a answer) {
	t.Helper()
	if err := json.NewDecoder(r).Decode(&a); err != nil {
		t.Fatal(err)
	}
	return a
}

// admit answers a ticket for 1.sequence.
func (s *service) admit(t *testing.T, more string) (reply, answer) {
	t.Helper()
	resp := s.post(t, "/v1/admit", `{"resource":"orders","token":"1.5"`+more+`}`)
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(resp.Body)
		t.Fatalf("status %d: %s", resp.StatusCode, body)
	}
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return resp, decode(t, strings.NewReader(line))
}

func (s *service) done(t *testing.T, ticket, outcome string) int {
	t.Helper()
	return s.post(t, "/v1/done/"+ticket, `{"outcome":"`+outcome+`"}`).StatusCode
}

func TestTicketIsEndedByItsHolder(t *testing.T) {
	s := start(t, nil)
	for outcome, want := range map[string]fence.Outcome{"finished": fence.Finished, "broken": fence.Broken} {
		_, a := s.admit(t, "")
		if a.Token != externaltest.Token(t, 5).Decimal() || a.ValidMS != 10_000 || s.gate.Open() != 1 {
			t.Fatalf("answer %+v, %d under way", a, s.gate.Open())
		}
		if status := s.done(t, a.Ticket, outcome); status != http.StatusNoContent {
			t.Fatalf("done: status %d", status)
		}
		if ended := s.gate.Ended(); ended[len(ended)-1] != want {
			t.Errorf("the gate was told %v, want %v last", ended, want)
		}
		if status := s.done(t, a.Ticket, outcome); status != http.StatusNotFound {
			t.Errorf("done a second time: status %d, want 404", status)
		}
	}
}

func TestTicketRunsOut(t *testing.T) {
	s := start(t, func(c *check.Config) { c.TicketTTL = 100 * time.Millisecond })
	_, a := s.admit(t, "")
	if ended := s.gate.AwaitEnded(t, 1); ended[0] != fence.Broken {
		t.Errorf("the gate was told %v, want broken", ended)
	}
	if status := s.done(t, a.Ticket, "finished"); status != http.StatusNotFound {
		t.Errorf("finished after its end: status %d, want 404", status)
	}
}

// Nobody can tell the bearer of a plain ticket, so a cut waits for the end of its time.
func TestCutDoesNotEndAPlainTicket(t *testing.T) {
	s := start(t, nil)
	_, a := s.admit(t, "")
	s.gate.Raise(resource, externaltest.Token(t, 6))
	if s.gate.Open() != 1 {
		t.Error("the write was called ended while its ticket is valid")
	}
	if status := s.done(t, a.Ticket, "finished"); status != http.StatusNoContent {
		t.Errorf("done: status %d", status)
	}
}

func TestHeldTicketEndsWithItsConnection(t *testing.T) {
	s := start(t, func(c *check.Config) { c.TicketTTL = 100 * time.Millisecond }) // does not count
	resp, a := s.admit(t, `,"hold":true`)
	if a.Event != "admitted" || a.ValidMS != 0 {
		t.Errorf("answer %+v", a)
	}
	resp.Body.Close()
	if ended := s.gate.AwaitEnded(t, 1); ended[0] != fence.Broken {
		t.Errorf("the gate was told %v, want broken", ended)
	}
}

func TestHeldTicketIsCut(t *testing.T) {
	s := start(t, func(c *check.Config) { c.CutGrace = time.Minute })
	resp, a := s.admit(t, `,"hold":true`)
	s.gate.Raise(resource, externaltest.Token(t, 6))
	if event := decode(t, resp.Body); event.Event != "cut" {
		t.Fatalf("event %+v", event)
	}
	if s.gate.Open() != 1 {
		t.Error("the write was called ended before its holder had time to break it off")
	}
	if status := s.done(t, a.Ticket, "finished"); status != http.StatusNoContent {
		t.Errorf("done: status %d", status)
	}
	if ended := s.gate.Ended(); !slices.Equal(ended, []fence.Outcome{fence.Finished}) {
		t.Errorf("the gate was told %v", ended)
	}
	if _, err := resp.Body.Read(make([]byte, 1)); err == nil {
		t.Error("the answer goes on after the end")
	}
}

func TestCutTicketThatNobodyEndsIsBroken(t *testing.T) {
	s := start(t, func(c *check.Config) { c.CutGrace = time.Millisecond })
	s.admit(t, `,"hold":true`)
	s.gate.Raise(resource, externaltest.Token(t, 6))
	if ended := s.gate.AwaitEnded(t, 1); ended[0] != fence.Broken {
		t.Errorf("the gate was told %v, want broken", ended)
	}
}

func TestRefusals(t *testing.T) {
	s := start(t, func(c *check.Config) { c.TrustTokens = false })
	s.gate.Raise(resource, externaltest.Token(t, 5))
	stale := s.gate.Sign(t, resource, externaltest.Token(t, 4))
	fresh := s.gate.Sign(t, resource, externaltest.Token(t, 5))
	other := externaltest.New(t).Sign(t, resource, externaltest.Token(t, 5))
	for _, test := range []struct {
		name, body string
		status     int
		reason     string
	}{
		{"stale", `{"resource":"orders","writ":"` + stale + `"}`, 412, fence.ReasonStaleToken},
		{"unknown key", `{"resource":"orders","writ":"` + other + `"}`, 403, fence.ReasonUnknownKey},
		{"forged", `{"resource":"orders","writ":"` + fresh[:len(fresh)-8] + `AAAAAAAA"}`, 403, fence.ReasonInvalidWrit},
		{"other resource", `{"resource":"accounts","writ":"` + fresh + `"}`, 403, fence.ReasonInvalidWrit},
		{"unguarded", `{"resource":"accounts","writ":"` + s.gate.Sign(t, "accounts", externaltest.Token(t, 5)) + `"}`, 404, fence.ReasonNoRoute},
		{"no credential", `{"resource":"orders"}`, 428, fence.ReasonNoCredential},
		{"both", `{"resource":"orders","writ":"` + fresh + `","token":"1.5"}`, 400, fence.ReasonInvalidWrit},
		{"empty writ", `{"resource":"orders","writ":""}`, 400, fence.ReasonInvalidWrit},
		{"long writ", `{"resource":"orders","writ":"` + strings.Repeat("a", fence.MaxWritBytes+1) + `"}`, 400, fence.ReasonInvalidWrit},
		{"writ of a number", `{"resource":"orders","writ":1}`, 400, "INVALID"},
		{"bare token", `{"resource":"orders","token":"1.5"}`, 400, fence.ReasonInvalidToken},
		{"token 0", `{"resource":"orders","token":0}`, 400, fence.ReasonInvalidToken},
		{"token -1", `{"resource":"orders","token":-1}`, 400, fence.ReasonInvalidToken},
		{"token 2^63", `{"resource":"orders","token":9223372036854775808}`, 400, fence.ReasonInvalidToken},
		{"token 1e18", `{"resource":"orders","token":1e18}`, 400, fence.ReasonInvalidToken},
		{"token null", `{"resource":"orders","token":null}`, 400, fence.ReasonInvalidToken},
		{"token of letters", `{"resource":"orders","token":"nine"}`, 400, fence.ReasonInvalidToken},
		{"token twice", `{"resource":"orders","token":"1.5","token":"1.6"}`, 400, "INVALID"},
		{"unknown member", `{"resource":"orders","Token":"1.5"}`, 400, "INVALID"},
		{"no resource", `{"writ":"` + fresh + `"}`, 400, "INVALID"},
		{"resource null", `{"resource":null,"writ":"` + fresh + `"}`, 400, "INVALID"},
		{"long resource", `{"resource":"` + strings.Repeat("a", 513) + `","writ":"` + fresh + `"}`, 400, "INVALID"},
		{"wait 0", `{"resource":"orders","writ":"` + fresh + `","wait_ms":0}`, 400, "INVALID"},
		{"wait too long", `{"resource":"orders","writ":"` + fresh + `","wait_ms":60001}`, 400, "INVALID"},
		{"hold of a string", `{"resource":"orders","writ":"` + fresh + `","hold":"true"}`, 400, "INVALID"},
		{"two objects", `{"resource":"orders","writ":"` + fresh + `"}{}`, 400, "INVALID"},
		{"no object", `[]`, 400, "INVALID"},
		{"nothing", ``, 400, "INVALID"},
		{"not UTF-8", "{\"resource\":\"\xff\"}", 400, "INVALID"},
		{"too long", strings.Repeat(" ", 33<<10), 400, "INVALID"},
	} {
		t.Run(test.name, func(t *testing.T) {
			resp := s.post(t, "/v1/admit", test.body)
			var p fence.Problem
			if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != test.status || p.Status != test.status || p.Reason != test.reason {
				t.Errorf("status %d, %+v; want %d and %s", resp.StatusCode, p, test.status, test.reason)
			}
		})
	}
	if s.gate.Open()+len(s.gate.Ended()) != 0 {
		t.Error("a refused write was admitted")
	}
	if status := s.done(t, "AAAA", "finished"); status != 404 {
		t.Errorf("a ticket nobody has: status %d", status)
	}
	if status := s.done(t, "AAAA", "FINISHED"); status != 400 {
		t.Errorf("an outcome there is not: status %d", status)
	}
}

func TestWaitIsBounded(t *testing.T) {
	s := start(t, nil)
	s.gate.Hold()
	resp := s.post(t, "/v1/admit", `{"resource":"orders","token":"1.5","wait_ms":5}`)
	if err := fence.ErrorFromResponse(resp.Response); resp.StatusCode != 503 || !errors.Is(err, fence.ErrUnavailable) {
		t.Errorf("status %d, %v", resp.StatusCode, err)
	}
}

func TestLimitOfOpenTickets(t *testing.T) {
	s := start(t, func(c *check.Config) { c.MaxOpenPerUID = 2 })
	_, first := s.admit(t, "")
	s.admit(t, `,"hold":true`)
	resp := s.post(t, "/v1/admit", `{"resource":"orders","token":"1.5"}`)
	var refused *fence.UnavailableError
	if err := fence.ErrorFromResponse(resp.Response); !errors.As(err, &refused) || refused.Obstacle != fence.Overloaded {
		t.Fatalf("the third: %v", err)
	}
	if status := s.done(t, first.Ticket, "finished"); status != http.StatusNoContent {
		t.Fatalf("done: status %d", status)
	}
	s.admit(t, "")
	// A write that is refused takes no room.
	if resp := s.post(t, "/v1/admit", `{"resource":"accounts","token":"1.5"}`); resp.StatusCode != 503 {
		t.Errorf("over the limit: status %d", resp.StatusCode)
	}
}

func TestRefusedWriteLeavesItsPlace(t *testing.T) {
	s := start(t, func(c *check.Config) { c.MaxOpenPerUID = 1 })
	for range 3 {
		if resp := s.post(t, "/v1/admit", `{"resource":"accounts","token":"1.5"}`); resp.StatusCode != 404 {
			t.Fatalf("status %d", resp.StatusCode)
		}
	}
	s.admit(t, "")
}

func TestOnlyConfiguredPeersAreAnswered(t *testing.T) {
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	for _, test := range []struct {
		name   string
		uids   []uint32
		gids   []uint32
		status int
	}{
		{"default", nil, nil, 200},
		{"uid", []uint32{uid + 1, uid}, nil, 200},
		{"gid", []uint32{uid + 1}, []uint32{gid}, 200},
		{"another uid", []uint32{uid + 1}, nil, 403},
		{"another gid", nil, []uint32{gid + 1}, 403},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, func(c *check.Config) { c.AllowUIDs, c.AllowGIDs = test.uids, test.gids })
			resp := s.post(t, "/v1/admit", `{"resource":"orders","token":"1.5"}`)
			if resp.StatusCode != test.status {
				t.Errorf("status %d, want %d", resp.StatusCode, test.status)
			}
		})
	}
}

// A stranger cannot take up connections without end.
func TestStrangersHaveFewConnections(t *testing.T) {
	s := start(t, func(c *check.Config) { c.AllowUIDs = []uint32{uint32(os.Geteuid()) + 1} })
	for range 4 {
		conn, err := net.Dial("unix", s.path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	conn, err := net.Dial("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(3 * time.Second)) // below the server's own
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrClosed) && !isReset(err) {
		t.Errorf("the fifth connection is kept: %v", err)
	}
}

func isReset(err error) bool { return err != nil && strings.Contains(err.Error(), "reset") }

func TestCloseBreaksWhatIsOpen(t *testing.T) {
	s := start(t, nil)
	s.admit(t, "")
	resp, _ := s.admit(t, `,"hold":true`)
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ended := s.gate.Ended(); !slices.Equal(ended, []fence.Outcome{fence.Broken, fence.Broken}) {
		t.Errorf("the gate was told %v", ended)
	}
	if _, err := resp.Body.Read(make([]byte, 1)); err == nil {
		t.Error("the held connection goes on")
	}
}

func TestConfigIsChecked(t *testing.T) {
	for field, c := range map[string]check.Config{
		"Admitter":      {},
		"MaxOpenPerUID": {Admitter: externaltest.New(t), MaxOpenPerUID: -1},
		"Slack":         {Admitter: externaltest.New(t)},
		"Slack is":      {Admitter: externaltest.New(t), Slack: check.MinTicketTTL},
		"TicketTTL":     {Admitter: externaltest.New(t), Slack: time.Second, TicketTTL: time.Millisecond},
		"TicketTTL is":  {Admitter: externaltest.New(t), Slack: time.Second, TicketTTL: time.Second},
		"CutGrace":      {Admitter: externaltest.New(t), Slack: time.Second, CutGrace: time.Second},
	} {
		if _, err := check.New(c); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: error %v does not name it", field, err)
		}
	}
}

// A guard that is cut off counts as out of the way when W has passed, and cannot take back what it has told: a ticket of the
// last moment must be over by then.
func TestTicketsRunOutWithinSlack(t *testing.T) {
	for slack, most := range map[time.Duration]time.Duration{
		150 * time.Millisecond: 100 * time.Millisecond,
		3 * time.Second:        2 * time.Second,
		15 * time.Second:       10 * time.Second,
		30 * time.Second:       10 * time.Second,
	} {
		s := start(t, func(c *check.Config) { c.Slack = slack })
		_, body := s.admit(t, "")
		if got := time.Duration(body.ValidMS) * time.Millisecond; got != most {
			t.Errorf("with a slack of %v a ticket is valid for %v, want %v", slack, got, most)
		}
	}
}

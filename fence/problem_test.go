package fence_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/fence"
)

var refusals = []struct {
	name   string
	err    error
	status int
	reason string
	is     error // what the caller's error is; nil: err itself
}{
	{"stale", &fence.StaleError{Resource: "orders", Have: 4<<48 | 7, Floor: 5<<48 | 1}, 412, fence.ReasonStaleToken, fence.ErrStale},
	{"none", fence.ErrNoCredential, 428, fence.ReasonNoCredential, nil},
	{"unguarded", fmt.Errorf("%w: orders", fence.ErrUnguarded), 404, fence.ReasonNoRoute, fence.ErrUnguarded},
	{"malformed", &fence.InvalidError{Kind: fence.ErrInvalidWrit, Field: "payload", Fix: "x"}, 400, fence.ReasonInvalidWrit, fence.ErrInvalidWrit},
	{"forged", &fence.InvalidError{Kind: fence.ErrInvalidWrit, Field: "signature", Fix: "x"}, 403, fence.ReasonInvalidWrit, fence.ErrInvalidWrit},
	{"alg none", &fence.InvalidError{Kind: fence.ErrInvalidWrit, Field: "alg", Value: "none", Fix: "x"}, 403, fence.ReasonInvalidWrit, fence.ErrInvalidWrit},
	{"other resource", &fence.InvalidError{Kind: fence.ErrInvalidWrit, Field: "res", Value: "a", Fix: "x"}, 403, fence.ReasonInvalidWrit, fence.ErrInvalidWrit},
	{"other issuer", &fence.InvalidError{Kind: fence.ErrInvalidWrit, Field: "iss", Value: "a", Fix: "x"}, 403, fence.ReasonInvalidWrit, fence.ErrInvalidWrit},
	{"unknown key", &fence.InvalidError{Kind: fence.ErrUnknownKey, Field: "kid", Value: "a", Fix: "x"}, 403, fence.ReasonUnknownKey, fence.ErrUnknownKey},
	{"token", &fence.InvalidError{Kind: fence.ErrInvalidToken, Field: "token", Value: "0", Fix: "x"}, 400, fence.ReasonInvalidToken, fence.ErrInvalidToken},
	{"unsupported", &fence.InvalidError{Kind: fence.ErrUnsupported, Field: "Upgrade", Value: "websocket", Fix: "x"}, 501, fence.ReasonUnsupported, fence.ErrUnsupported},
	{"isolated", &fence.UnavailableError{Resource: "orders", Obstacle: fence.Isolated, Detail: "no contact", RetryAfter: 5 * time.Second}, 503, fence.ReasonUnavailable, fence.ErrUnavailable},
	{"out of time", context.DeadlineExceeded, 503, fence.ReasonUnavailable, fence.ErrUnavailable},
	{"abandoned", context.Canceled, 503, fence.ReasonUnavailable, fence.ErrUnavailable},
	{"unknown", errors.New("secret of the guard"), 500, fence.ReasonInternal, fence.ErrUnavailable},
}

// What a guard writes, a caller reads.
func TestProblemRoundTrip(t *testing.T) {
	for _, test := range refusals {
		t.Run(test.name, func(t *testing.T) {
			recorder := httptest.NewRecorder()
			fence.WriteProblem(recorder, test.err)
			resp := recorder.Result()
			if resp.StatusCode != test.status || resp.Header.Get("Content-Type") != "application/problem+json" || resp.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("status %d, header %v; want %d", resp.StatusCode, resp.Header, test.status)
			}
			if (test.status == 503) != (resp.Header.Get("Retry-After") != "") {
				t.Errorf("Retry-After %q with status %d", resp.Header.Get("Retry-After"), test.status)
			}
			written := recorder.Body.String()
			var p fence.Problem
			if err := json.Unmarshal([]byte(written), &p); err != nil {
				t.Fatal(err)
			}
			if p.Status != test.status || p.Reason != test.reason || p.Type != fence.ProblemType(test.reason) || p.Title == "" {
				t.Errorf("problem %+v", p)
			}
			if strings.Contains(written, "secret") {
				t.Error("the caller is shown what is not one of the guard's refusals")
			}
			err := fence.ErrorFromResponse(resp)
			want := test.is
			if want == nil {
				want = test.err
			}
			if !errors.Is(err, want) {
				t.Errorf("the caller has %v, want %v", err, want)
			}
			var stale, sent *fence.StaleError
			if errors.As(test.err, &sent) && (!errors.As(err, &stale) || *stale != *sent) {
				t.Errorf("the caller has %v, want %v", err, test.err)
			}
			var bad, sentBad *fence.InvalidError
			if errors.As(test.err, &sentBad) && (!errors.As(err, &bad) || *bad != *sentBad) {
				t.Errorf("the caller has %v, want %v", err, test.err)
			}
			var away, sentAway *fence.UnavailableError
			if errors.As(test.err, &sentAway) && (!errors.As(err, &away) || *away != *sentAway) {
				t.Errorf("the caller has %+v, want %+v", err, test.err)
			}
			if left, err := io.ReadAll(resp.Body); err != nil || string(left) != written {
				t.Errorf("the body is %q afterwards, %v", left, err)
			}
		})
	}
}

// A problem is one line of ASCII, whatever is in it, so that it fits into a header.
func TestProblemFitsIntoAHeader(t *testing.T) {
	for _, name := range []string{"orders", "ä", "\x7f", "\u0085", "😀", " \"\r\n\t<&>", "\xff", "ä\u0085\x7f😀\xff"} {
		p := fence.ProblemFor(&fence.StaleError{Resource: name, Have: 1<<48 | 1, Floor: 1<<48 | 2})
		text := p.JSON()
		if i := bytes.IndexFunc(text, func(r rune) bool { return r < ' ' || r >= 0x7f }); i >= 0 {
			t.Errorf("%q has another character at %d", text, i)
		}
		var read fence.Problem
		if err := json.Unmarshal(text, &read); err != nil || read.Resource != strings.ToValidUTF8(name, "\ufffd") {
			t.Errorf("%q is read as %q, %v", text, read.Resource, err)
		}
	}
}

func TestRetryAfterIsRoundedUp(t *testing.T) {
	for d, want := range map[time.Duration]int{0: 0, -time.Second: 0, 1: 1, time.Second: 1, time.Second + 1: 2, 1<<63 - 1: 86400} {
		if got := (fence.Problem{RetryAfter: d}).RetryAfterSeconds(); got != want {
			t.Errorf("%v: %d, want %d", d, got, want)
		}
	}
}

func response(status int, contentType, body string) http.Response {
	return http.Response{
		StatusCode: status, Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(strings.NewReader(body)),
	}
}

func TestErrorFromResponseIsCareful(t *testing.T) {
	stale := `{"type":"https://writ.dev/problems/stale-token","reason":"STALE_TOKEN","token":"x","floor":"y","status":412}`
	for name, resp := range map[string]http.Response{
		"success":       response(200, fence.ProblemContentType, stale),
		"another type":  response(412, "text/html", stale),
		"no type":       response(412, "", stale),
		"not ours":      response(412, fence.ProblemContentType, strings.Replace(stale, "writ.dev", "example", 1)),
		"no JSON":       response(412, fence.ProblemContentType, stale+"}"),
		"other reason":  response(412, fence.ProblemContentType, strings.Replace(stale, "STALE_TOKEN", "UPSTREAM_BROKEN", 1)),
		"no body":       {StatusCode: 412},
		"endless":       response(412, fence.ProblemContentType, strings.Repeat(" ", 65<<10)+stale),
		"wrong members": response(412, fence.ProblemContentType, `{"type":1}`),
	} {
		if err := fence.ErrorFromResponse(&resp); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	resp := response(412, fence.ProblemContentType+"; charset=utf-8", stale)
	if err := fence.ErrorFromResponse(&resp); !errors.Is(err, fence.ErrStale) {
		t.Errorf("tokens that cannot be read: %v, want that it is stale all the same", err)
	}
}

func TestErrorFromResponseKeepsTheFailureOfABody(t *testing.T) {
	broken := errors.New("connection lost")
	resp := response(412, fence.ProblemContentType, "")
	resp.Body = io.NopCloser(io.MultiReader(strings.NewReader("{"), failing{broken}))
	if err := fence.ErrorFromResponse(&resp); err != nil {
		t.Errorf("error %v", err)
	}
	if text, err := io.ReadAll(resp.Body); string(text) != "{" || !errors.Is(err, broken) {
		t.Errorf("the body is %q, %v afterwards", text, err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func FuzzErrorFromResponse(f *testing.F) {
	for _, test := range refusals {
		f.Add(fence.ProblemFor(test.err).JSON(), "5")
	}
	f.Add([]byte(`{"type":"https://writ.dev/problems/","reason":"STALE_TOKEN","token":9223372036854775808}`), "-1")
	f.Fuzz(func(t *testing.T, body []byte, retry string) {
		resp := &http.Response{
			StatusCode: 412, Header: http.Header{"Content-Type": {fence.ProblemContentType}, "Retry-After": {retry}},
			Body: io.NopCloser(bytes.NewReader(body)),
		}
		err := fence.ErrorFromResponse(resp)
		if left, readErr := io.ReadAll(resp.Body); readErr != nil || !bytes.Equal(left, body) {
			t.Fatalf("%q is %q afterwards, %v", body, left, readErr)
		}
		if err == nil {
			return
		}
		// What was read can be told again, and is the same then.
		again := fence.ProblemFor(err).Err()
		for _, kind := range []error{
			fence.ErrStale, fence.ErrNoCredential, fence.ErrUnknownKey, fence.ErrInvalidWrit, fence.ErrInvalidToken, fence.ErrUnsupported,
			fence.ErrUnguarded, fence.ErrUnavailable,
		} {
			if errors.Is(err, kind) != errors.Is(again, kind) {
				t.Fatalf("%v became %v", err, again)
			}
		}
	})
}

package fence

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// ProblemContentType is the media type of a refusal's body (RFC 9457).
	ProblemContentType = "application/problem+json"
	// ProblemBase is the beginning of every refusal's type.
	ProblemBase = "https://writ.dev/problems/"

	// maxProblemBytes bounds what [ErrorFromResponse] reads.
	maxProblemBytes = 64 << 10
	// defaultRetryAfter is told where nothing is known.
	defaultRetryAfter = time.Second
)

// Reasons of refusals, for machines: the member reason of a [Problem].
const (
	ReasonStaleToken   = "STALE_TOKEN"
	ReasonNoCredential = "NO_CREDENTIAL"
	ReasonInvalidWrit  = "INVALID_WRIT"
	ReasonInvalidToken = "INVALID_TOKEN"
	ReasonUnknownKey   = "UNKNOWN_KEY"
	ReasonNoRoute      = "NO_ROUTE"
	ReasonUnavailable  = "UNAVAILABLE"
	ReasonUnsupported  = "UNSUPPORTED"
	ReasonInternal     = "INTERNAL"
)

// Problem is a refusal as the body of an HTTP response. Tokens are decimal integers as strings.
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
	// Reason is one of the Reason constants.
	Reason string `json:"reason"`
	// Resource, Token and Floor are those of a [*StaleError]; Resource also that of an [*UnavailableError].
	Resource string `json:"resource,omitempty"`
	Token    string `json:"token,omitempty"`
	Floor    string `json:"floor,omitempty"`
	// Obstacle is that of an [*UnavailableError].
	Obstacle string `json:"obstacle,omitempty"`
	// Field, Value and Fix are those of an [*InvalidError].
	Field string `json:"field,omitempty"`
	Value string `json:"value,omitempty"`
	Fix   string `json:"fix,omitempty"`
	// RetryAfter goes into the header of that name, in whole seconds; 0: trying again does not help.
	RetryAfter time.Duration `json:"-"`
}

// problemRow says what one kind of refusal is in HTTP.
type problemRow struct {
	err    error
	reason string
	status int
	title  string
}

// problemTable is the only place that relates refusals to HTTP. The first row that matches counts.
var problemTable = [...]problemRow{
	{ErrStale, ReasonStaleToken, http.StatusPreconditionFailed, "The token is stale"},
	{ErrNoCredential, ReasonNoCredential, http.StatusPreconditionRequired, "A writ is required"},
	{ErrUnknownKey, ReasonUnknownKey, http.StatusForbidden, "The writ's key is unknown"},
	{ErrInvalidWrit, ReasonInvalidWrit, http.StatusBadRequest, "The writ is invalid"},
	{ErrInvalidToken, ReasonInvalidToken, http.StatusBadRequest, "The token is invalid"},
	{ErrUnsupported, ReasonUnsupported, http.StatusNotImplemented, "The request cannot be guarded"},
	{ErrUnguarded, ReasonNoRoute, http.StatusNotFound, "The resource is not guarded here"},
	{ErrUnavailable, ReasonUnavailable, http.StatusServiceUnavailable, "The guard cannot decide at the moment"},
	{context.DeadlineExceeded, ReasonUnavailable, http.StatusServiceUnavailable, "The guard did not decide in time"},
	{context.Canceled, ReasonUnavailable, http.StatusServiceUnavailable, "The request was abandoned"},
}

// forgeries are the fields of a well-formed writ that are wrong only in a forged or a misdirected one.
var forgeries = map[string]bool{"signature": true, "iss": true, "res": true, "alg": true, "typ": true}

// ProblemFor describes err, which must not be nil. An error that is not one of this package's becomes INTERNAL, and its
// text is kept from the caller.
func ProblemFor(err error) Problem {
	p := Problem{
		Type: ProblemBase + "internal", Title: "The guard failed", Status: http.StatusInternalServerError, Reason: ReasonInternal,
	}
	for _, row := range problemTable {
		if errors.Is(err, row.err) {
			p.Type, p.Title, p.Status, p.Reason = ProblemType(row.reason), row.title, row.status, row.reason
			p.Detail = err.Error()
			break
		}
	}
	if p.Status == http.StatusServiceUnavailable {
		p.RetryAfter = defaultRetryAfter
	}
	var stale *StaleError
	var bad *InvalidError
	var unavailable *UnavailableError
	switch {
	case p.Reason == ReasonStaleToken && errors.As(err, &stale):
		p.Resource, p.Token, p.Floor = stale.Resource, stale.Have.Decimal(), stale.Floor.Decimal()
	case p.Reason == ReasonUnavailable && errors.As(err, &unavailable):
		p.Resource, p.Obstacle = unavailable.Resource, string(unavailable.Obstacle)
		if unavailable.RetryAfter > 0 {
			p.RetryAfter = unavailable.RetryAfter
		}
	case errors.As(err, &bad) && errors.Is(err, bad.Kind):
		p.Field, p.Value, p.Fix = bad.Field, bad.Value, bad.Fix
		if p.Reason == ReasonInvalidWrit && forgeries[bad.Field] {
			p.Status = http.StatusForbidden
		}
	}
	return p
}

// ProblemType is the type of the problem with a reason.
func ProblemType(reason string) string {
	return ProblemBase + strings.ReplaceAll(strings.ToLower(reason), "_", "-")
}

// WriteProblem answers a request with the refusal err, which must not be nil.
func WriteProblem(w http.ResponseWriter, err error) { ProblemFor(err).Respond(w) }

// Respond answers a request with p.
func (p Problem) Respond(w http.ResponseWriter) {
	body := p.JSON()
	h := w.Header()
	h.Set("Content-Type", ProblemContentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if seconds := p.RetryAfterSeconds(); seconds > 0 {
		h.Set("Retry-After", strconv.Itoa(seconds))
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // the caller has gone, or the server notes it
}

// RetryAfterSeconds is RetryAfter in whole seconds, rounded up; 0: trying again does not help.
func (p Problem) RetryAfterSeconds() int {
	if p.RetryAfter <= 0 {
		return 0
	}
	return int(min((p.RetryAfter-1)/time.Second+1, maxRetrySeconds))
}

// JSON returns p as one line of JSON in ASCII, so that it also fits into a header.
func (p Problem) JSON() []byte {
	text, err := json.Marshal(p)
	if err != nil {
		panic("fence: " + err.Error()) // strings and an integer always marshal
	}
	return escapeASCII(text)
}

// escapeASCII writes what is beyond ASCII, and DEL, as \u escapes.
func escapeASCII(text []byte) []byte {
	const hex = "0123456789abcdef"
	if bytes.IndexFunc(text, func(r rune) bool { return r >= 0x7f }) < 0 {
		return text
	}
	escape := func(out []byte, r rune) []byte {
		return append(out, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
	}
	out := make([]byte, 0, len(text)+32)
	for _, r := range string(text) {
		switch {
		case r < 0x7f:
			out = append(out, byte(r))
		case r <= 0xffff:
			out = escape(out, r)
		default:
			r -= 0x10000
			out = escape(escape(out, 0xd800+r>>10), 0xdc00+r&0x3ff)
		}
	}
	return out
}

// ErrorFromResponse returns the refusal that resp is, or nil if it is none: the inverse of [WriteProblem], up to the text
// of the error. It reads at most 64 KiB of a body that says it is a problem, and leaves the whole body to be read again.
// The caller still closes it.
func ErrorFromResponse(resp *http.Response) error {
	if resp.StatusCode < 400 || resp.Body == nil {
		return nil
	}
	media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || media != ProblemContentType {
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxProblemBytes))
	rest := io.Reader(resp.Body)
	if err != nil {
		rest = failedReader{err}
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(body), rest), resp.Body}
	var p Problem
	if json.Unmarshal(body, &p) != nil || !strings.HasPrefix(p.Type, ProblemBase) {
		return nil
	}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 && seconds <= maxRetrySeconds {
		p.RetryAfter = time.Duration(seconds) * time.Second
	}
	return p.Err()
}

// maxRetrySeconds bounds what is believed of a Retry-After: a day.
const maxRetrySeconds = 24 * 60 * 60

// failedReader goes on as a reader that has failed.
type failedReader struct{ err error }

func (r failedReader) Read([]byte) (int, error) { return 0, r.err }

// Err returns the error that p describes, or nil if it is not a refusal of a guard.
func (p Problem) Err() error {
	switch p.Reason {
	case ReasonStaleToken:
		// Stale it is even if a token cannot be read, which is zero then.
		stale := &StaleError{Resource: p.Resource}
		stale.Have, _ = ParseToken(p.Token)
		stale.Floor, _ = ParseToken(p.Floor)
		return stale
	case ReasonUnavailable:
		return p.unavailable()
	case ReasonNoCredential:
		return ErrNoCredential
	case ReasonNoRoute:
		return ErrUnguarded
	case ReasonInvalidWrit:
		return p.invalid(ErrInvalidWrit)
	case ReasonInvalidToken:
		return p.invalid(ErrInvalidToken)
	case ReasonUnknownKey:
		return p.invalid(ErrUnknownKey)
	case ReasonUnsupported:
		return p.invalid(ErrUnsupported)
	case ReasonInternal:
		return &UnavailableError{Resource: p.Resource, Detail: "the guard failed"}
	}
	return nil
}

func (p Problem) unavailable() error {
	e := &UnavailableError{Resource: p.Resource, Obstacle: Obstacle(p.Obstacle), RetryAfter: p.RetryAfter}
	// The detail is a whole sentence, of which the error makes the beginning itself.
	detail := strings.TrimPrefix(strings.TrimPrefix(p.Detail, e.Error()), ": ")
	e.Detail = detail[:min(len(detail), maxDetailBytes)]
	return e
}

// maxDetailBytes bounds what is repeated of an explanation.
const maxDetailBytes = 1 << 10

func (p Problem) invalid(kind error) error {
	return &InvalidError{Kind: kind, Field: shorten(p.Field), Value: shorten(p.Value), Fix: shorten(p.Fix)}
}

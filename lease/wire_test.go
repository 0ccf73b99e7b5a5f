package lease_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// The table of docs and command line: what every reason is elsewhere.
var wireTable = []struct {
	reason lease.Reason
	code   codes.Code
	http   int
	exit   int
}{
	{lease.ReasonHeld, codes.Aborted, 409, 3},
	{lease.ReasonStaleToken, codes.FailedPrecondition, 412, 2},
	{lease.ReasonNotHolder, codes.FailedPrecondition, 412, 2},
	{lease.ReasonReleased, codes.FailedPrecondition, 412, 2},
	{lease.ReasonExpired, codes.FailedPrecondition, 412, 7},
	{lease.ReasonNotFound, codes.NotFound, 404, 1},
	{lease.ReasonInvalid, codes.InvalidArgument, 400, 1},
	{lease.ReasonDenied, codes.PermissionDenied, 403, 4},
	{lease.ReasonUnauthenticated, codes.Unauthenticated, 401, 4},
	{lease.ReasonLimit, codes.ResourceExhausted, 429, 5},
	{lease.ReasonNoQuorum, codes.Unavailable, 503, 5},
	{lease.ReasonNotCoordinator, codes.Unavailable, 503, 5},
	{lease.ReasonUnknownOutcome, codes.Unavailable, 503, 5},
	{lease.ReasonRecovering, codes.Unavailable, 503, 5},
	{lease.ReasonResync, codes.OutOfRange, 410, 1},
	{lease.ReasonNotGuarded, codes.FailedPrecondition, 412, 2},
	{lease.ReasonConflict, codes.Aborted, 409, 2},
	{lease.ReasonFencing, codes.Unavailable, 503, 6},
	{lease.ReasonPending, codes.FailedPrecondition, 412, 6},
	{lease.ReasonInternal, codes.Internal, 500, 1},
}

// overTheWire sends a status as a server does: encoded.
func overTheWire(t interface{ Fatal(...any) }, st *status.Status) *status.Status {
	encoded, err := proto.Marshal(st.Proto())
	if err != nil {
		t.Fatal(err)
	}
	var decoded spb.Status
	if err := proto.Unmarshal(encoded, &decoded); err != nil {
		t.Fatal(err)
	}
	return status.FromProto(&decoded)
}

func TestEveryReasonHasOneRow(t *testing.T) {
	var want []lease.Reason
	for _, row := range wireTable {
		want = append(want, row.reason)
		sent := &lease.Error{Reason: row.reason, Message: "why"}
		st := overTheWire(t, lease.ToStatus(sent))
		if st.Code() != row.code || lease.GRPCCode(row.reason) != row.code {
			t.Errorf("%s: code %v, want %v", row.reason, st.Code(), row.code)
		}
		for _, err := range []error{sent, st.Err(), fmt.Errorf("while testing: %w", sent)} {
			if got := lease.HTTPStatus(err); got != row.http {
				t.Errorf("%s: HTTP %d, want %d", row.reason, got, row.http)
			}
			if got := lease.ExitCode(err); got != row.exit {
				t.Errorf("%s: exit code %d, want %d", row.reason, got, row.exit)
			}
			if got := lease.ReasonOf(err); got != row.reason {
				t.Errorf("%s: reason %s", row.reason, got)
			}
		}
		if got := lease.FromStatus(st); !errors.Is(got, sent) {
			t.Errorf("%s: came back as %v", row.reason, got)
		}
	}
	if got := lease.Reasons(); !reflect.DeepEqual(got, want) {
		t.Errorf("Reasons() = %v, want %v", got, want)
	}
}

func drawToken(t *rapid.T) fence.Token {
	if rapid.Bool().Draw(t, "has token") {
		token, err := fence.NewToken(fence.Epoch(rapid.IntRange(1, int(fence.MaxEpoch)).Draw(t, "epoch")),
			rapid.Uint64Range(1, fence.MaxSequence).Draw(t, "sequence"))
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	return 0
}

func TestErrorsRoundTrip(t *testing.T) {
	text := rapid.OneOf(rapid.Just(""), rapid.SampledFrom([]string{"f", "; f", ": ", " x", "HELD", "HELD: "}), rapid.String())
	rapid.Check(t, func(t *rapid.T) {
		sent := &lease.Error{
			Reason:   rapid.SampledFrom(lease.Reasons()).Draw(t, "reason"),
			Message:  text.Draw(t, "message"),
			Field:    text.Draw(t, "field"),
			Fix:      text.Draw(t, "fix"),
			Resource: lease.Resource(text.Draw(t, "resource")),
			Holder: lease.Holder{
				Principal: lease.Principal(text.Draw(t, "principal")),
				Instance:  text.Draw(t, "instance"),
				Region:    text.Draw(t, "region"),
			},
			Token:      drawToken(t),
			RetryAfter: time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "retry after")),
		}
		got := lease.FromStatus(overTheWire(t, lease.ToStatus(sent)))
		if !reflect.DeepEqual(got, error(sent)) {
			t.Fatalf("sent %#v\n got %#v", sent, got)
		}
	})
}

func TestUnprintableErrorsStillTravel(t *testing.T) {
	sent := &lease.Error{Reason: lease.ReasonInvalid, Field: "resource", Message: "is \xff", Resource: "a\xff"}
	var got *lease.Error
	if err := lease.FromStatus(overTheWire(t, lease.ToStatus(sent))); !errors.As(err, &got) ||
		got.Field != "resource" || got.Message != "is \uFFFD" || got.Resource != "a\uFFFD" {
		t.Fatalf("got %#v", got)
	}
}

func TestRetryAfterReadsMetadataWithoutRetryInfo(t *testing.T) {
	st, err := status.New(codes.ResourceExhausted, "LIMIT").WithDetails(&errdetails.ErrorInfo{
		Domain: lease.ErrorDomain, Reason: "LIMIT", Metadata: map[string]string{"retry_after_ms": "1500"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got *lease.Error
	if !errors.As(lease.FromStatus(st), &got) || got.RetryAfter != 1500*time.Millisecond {
		t.Fatalf("got %#v", got)
	}
}

func TestRetryAfterIsRoundedUpInMetadata(t *testing.T) {
	st := lease.ToStatus(&lease.Error{Reason: lease.ReasonLimit, RetryAfter: time.Microsecond})
	for _, detail := range st.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.Metadata["retry_after_ms"] != "1" {
			t.Fatalf("retry_after_ms = %q, want 1", info.Metadata["retry_after_ms"])
		}
	}
}

func TestToStatus(t *testing.T) {
	secret := errors.New("open /etc/secret: denied")
	foreign := status.New(codes.DataLoss, "disk")
	cases := []struct {
		name   string
		err    error
		code   codes.Code
		reason lease.Reason
	}{
		{"nil", nil, codes.OK, ""},
		{"deadline", fmt.Errorf("commit: %w", context.DeadlineExceeded), codes.DeadlineExceeded, ""},
		{"cancelled", context.Canceled, codes.Canceled, ""},
		{"reason beats context", fmt.Errorf("%w: %w", lease.ErrNoQuorum, context.DeadlineExceeded), codes.Unavailable, lease.ReasonNoQuorum},
		{"stale", &fence.StaleError{Resource: "a", Have: 1<<48 | 1, Floor: 1<<48 | 2}, codes.FailedPrecondition, lease.ReasonStaleToken},
		{"foreign", secret, codes.Internal, lease.ReasonInternal},
		{"status of another node", foreign.Err(), codes.DataLoss, lease.ReasonUnknownOutcome},
	}
	for _, c := range cases {
		st := lease.ToStatus(c.err)
		if st.Code() != c.code || lease.ReasonOf(st.Err()) != c.reason {
			t.Errorf("%s: %v with reason %q, want %v with %q", c.name, st, lease.ReasonOf(st.Err()), c.code, c.reason)
		}
		if errors.Is(c.err, secret) && st.Message() != "INTERNAL: internal error" {
			t.Errorf("%s: %q lets out a foreign error", c.name, st.Message())
		}
	}
	if err := lease.FromStatus(lease.ToStatus(cases[4].err)); !errors.Is(err, fence.ErrStale) {
		t.Errorf("stale came back as %v", err)
	}
}

func TestStatusOfTheTransport(t *testing.T) {
	cases := []struct {
		code   codes.Code
		reason lease.Reason
		is     error
		exit   int
		http   int
	}{
		{codes.Unavailable, lease.ReasonUnknownOutcome, lease.ErrUnknownOutcome, 5, 503},
		{codes.Internal, lease.ReasonUnknownOutcome, lease.ErrUnknownOutcome, 5, 503},
		{codes.Unknown, lease.ReasonUnknownOutcome, lease.ErrUnknownOutcome, 5, 503},
		{codes.Aborted, lease.ReasonUnknownOutcome, lease.ErrUnknownOutcome, 5, 503},
		{codes.DataLoss, lease.ReasonUnknownOutcome, lease.ErrUnknownOutcome, 5, 503},
		{codes.DeadlineExceeded, "", context.DeadlineExceeded, 5, http.StatusGatewayTimeout},
		{codes.DeadlineExceeded, "", lease.ErrUnknownOutcome, 5, http.StatusGatewayTimeout},
		{codes.Canceled, "", context.Canceled, 1, 499},
		{codes.Canceled, "", lease.ErrUnknownOutcome, 1, 499},
		{codes.Unauthenticated, lease.ReasonUnauthenticated, lease.ErrUnauthenticated, 4, 401},
		{codes.PermissionDenied, lease.ReasonDenied, lease.ErrDenied, 4, 403},
		{codes.InvalidArgument, lease.ReasonInvalid, lease.ErrInvalid, 1, 400},
		{codes.NotFound, lease.ReasonNotFound, lease.ErrNotFound, 1, 404},
		{codes.ResourceExhausted, lease.ReasonLimit, lease.ErrLimit, 5, 429},
		{codes.Unimplemented, lease.ReasonInternal, &lease.Error{Reason: lease.ReasonInternal}, 1, 500},
	}
	for _, c := range cases {
		wire := status.New(c.code, "said the transport").Err()
		err := lease.FromError(fmt.Errorf("call: %w", wire))
		if !errors.Is(err, c.is) || lease.ReasonOf(err) != c.reason {
			t.Errorf("%v: %v with reason %q, want %q", c.code, err, lease.ReasonOf(err), c.reason)
		}
		if errors.Is(err, lease.ErrNoQuorum) {
			t.Errorf("%v: claims that nothing was changed", c.code)
		}
		if lease.ExitCode(wire) != c.exit || lease.HTTPStatus(wire) != c.http {
			t.Errorf("%v: exit %d and HTTP %d, want %d and %d", c.code, lease.ExitCode(wire), lease.HTTPStatus(wire), c.exit, c.http)
		}
	}
	if lease.FromStatus(nil) != nil || lease.FromError(nil) != nil || lease.ExitCode(nil) != 0 || lease.HTTPStatus(nil) != 200 {
		t.Error("OK is an error")
	}
	other := errors.New("other")
	if !errors.Is(lease.FromError(other), other) || !errors.Is(lease.FromError(lease.ErrHeld), lease.ErrHeld) {
		t.Error("FromError changed an error that is not a status")
	}
}

func TestNewerReasonsSurvive(t *testing.T) {
	sent := &lease.Error{Reason: "TOMORROW", Message: "new"}
	got := lease.FromStatus(lease.ToStatus(sent))
	if !reflect.DeepEqual(got, error(sent)) {
		t.Fatalf("got %#v", got)
	}
	if lease.ExitCode(got) != 1 || lease.HTTPStatus(got) != 500 {
		t.Fatalf("exit %d, HTTP %d", lease.ExitCode(got), lease.HTTPStatus(got))
	}
}

func TestForeignDomainsAreNotOurs(t *testing.T) {
	st, err := status.New(codes.Unavailable, "x").WithDetails(&errdetails.ErrorInfo{Domain: "proxy.example", Reason: "HELD"})
	if err != nil {
		t.Fatal(err)
	}
	if err := lease.FromStatus(st); !errors.Is(err, lease.ErrUnknownOutcome) || errors.Is(err, lease.ErrHeld) {
		t.Fatalf("got %v", err)
	}
}

package lease

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/writ-io/writ/fence"
)

// ErrorDomain is the domain of the google.rpc.ErrorInfo in every failed call.
const ErrorDomain = "writ.io"

// Exit codes of the command line.
const (
	ExitOK            = 0
	ExitError         = 1
	ExitRefused       = 2 // refused or stale
	ExitHeld          = 3 // held by another
	ExitNotAuthorised = 4
	ExitUnavailable   = 5
	ExitPending       = 6
	ExitExpired       = 7
)

// wireRow says what one reason is in gRPC, in HTTP and as an exit code.
type wireRow struct {
	reason Reason
	code   codes.Code
	http   int
	exit   int
}

// wireTable is the only place that relates reasons to codes. Order: as in errors.go.
var wireTable = [...]wireRow{
	{ReasonHeld, codes.Aborted, http.StatusConflict, ExitHeld},
	{ReasonStaleToken, codes.FailedPrecondition, http.StatusPreconditionFailed, ExitRefused},
	{ReasonNotHolder, codes.FailedPrecondition, http.StatusPreconditionFailed, ExitRefused},
	{ReasonReleased, codes.FailedPrecondition, http.StatusPreconditionFailed, ExitRefused},
	{ReasonExpired, codes.FailedPrecondition, http.StatusPreconditionFailed, ExitExpired},
	{ReasonNotFound, codes.NotFound, http.StatusNotFound, ExitError},
	{ReasonInvalid, codes.InvalidArgument, http.StatusBadRequest, ExitError},
	{ReasonDenied, codes.PermissionDenied, http.StatusForbidden, ExitNotAuthorised},
	{ReasonUnauthenticated, codes.Unauthenticated, http.StatusUnauthorized, ExitNotAuthorised},
	{ReasonLimit, codes.ResourceExhausted, http.StatusTooManyRequests, ExitUnavailable},
	{ReasonNoQuorum, codes.Unavailable, http.StatusServiceUnavailable, ExitUnavailable},
	{ReasonNotCoordinator, codes.Unavailable, http.StatusServiceUnavailable, ExitUnavailable},
	{ReasonUnknownOutcome, codes.Unavailable, http.StatusServiceUnavailable, ExitUnavailable},
	{ReasonRecovering, codes.Unavailable, http.StatusServiceUnavailable, ExitUnavailable},
	{ReasonResync, codes.OutOfRange, http.StatusGone, ExitError},
	{ReasonNotGuarded, codes.FailedPrecondition, http.StatusPreconditionFailed, ExitRefused},
	{ReasonConflict, codes.Aborted, http.StatusConflict, ExitRefused},
	{ReasonFencing, codes.Unavailable, http.StatusServiceUnavailable, ExitPending},
	{ReasonPending, codes.FailedPrecondition, http.StatusPreconditionFailed, ExitPending},
	{ReasonInternal, codes.Internal, http.StatusInternalServerError, ExitError},
}

// wireRowOf finds the row of a reason; a reason that this version does not know counts as INTERNAL.
func wireRowOf(reason Reason) wireRow {
	for _, row := range wireTable {
		if row.reason == reason {
			return row
		}
	}
	return wireTable[len(wireTable)-1]
}

// Reasons lists every reason that this version knows.
func Reasons() []Reason {
	reasons := make([]Reason, len(wireTable))
	for i, row := range wireTable {
		reasons[i] = row.reason
	}
	return reasons
}

// ReasonOf returns the reason of err, "" when it has none (nil, context errors) and INTERNAL for foreign errors. It reads
// gRPC status errors too.
func ReasonOf(err error) Reason {
	err = FromError(err)
	var own *Error
	var stale *fence.StaleError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &own):
		return own.Reason
	case errors.As(err, &stale):
		return ReasonStaleToken
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return ""
	}
	return ReasonInternal
}

// GRPCCode returns the canonical code of a reason.
func GRPCCode(reason Reason) codes.Code { return wireRowOf(reason).code }

// HTTPStatus returns the HTTP status for err: 200 for nil, 499 for a call that its caller cancelled, 504 for one that ran
// out of time, and otherwise what the table says.
func HTTPStatus(err error) int {
	reason := ReasonOf(err)
	switch {
	case err == nil:
		return http.StatusOK
	case reason != "":
		return wireRowOf(reason).http
	case errors.Is(FromError(err), context.Canceled):
		return 499
	}
	return http.StatusGatewayTimeout
}

// ExitCode returns the exit code of a command that ends with err: 0 for nil, [ExitUnavailable] when time ran out.
func ExitCode(err error) int {
	reason := ReasonOf(err)
	switch {
	case err == nil:
		return ExitOK
	case reason != "":
		return wireRowOf(reason).exit
	case errors.Is(FromError(err), context.DeadlineExceeded):
		return ExitUnavailable
	}
	return ExitError
}

// Keys of the metadata in google.rpc.ErrorInfo.
const (
	wireField           = "field"
	wireFix             = "fix"
	wireResource        = "resource"
	wireToken           = "token"
	wireHolder          = "holder"
	wireHolderPrincipal = "holder_principal"
	wireHolderInstance  = "holder_instance"
	wireHolderRegion    = "holder_region"
	wireRetryAfterMS    = "retry_after_ms"
)

// GRPCStatus lets a gRPC handler return an *Error as it is.
func (e *Error) GRPCStatus() *status.Status {
	text := strings.ToValidUTF8(e.Error(), "\uFFFD")
	info := &errdetails.ErrorInfo{Reason: string(e.Reason), Domain: ErrorDomain, Metadata: wireMetadata(e)}
	details := []protoadapt.MessageV1{info}
	if e.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	st, err := status.New(GRPCCode(e.Reason), text).WithDetails(details...)
	if err != nil {
		// Unreachable: no row of the table is OK, and every string is valid UTF-8.
		panic(fmt.Sprintf("lease: error %q does not fit on the wire: %v", text, err))
	}
	return st
}

func wireMetadata(e *Error) map[string]string {
	metadata := make(map[string]string)
	put := func(key, value string) {
		if value != "" {
			metadata[key] = strings.ToValidUTF8(value, "\uFFFD")
		}
	}
	put(wireField, e.Field)
	put(wireFix, e.Fix)
	put(wireResource, string(e.Resource))
	put(wireHolder, e.Holder.String())
	put(wireHolderPrincipal, string(e.Holder.Principal))
	put(wireHolderInstance, e.Holder.Instance)
	put(wireHolderRegion, e.Holder.Region)
	if !e.Token.IsZero() {
		put(wireToken, e.Token.Decimal())
	}
	if e.RetryAfter > 0 {
		// Rounded up, so that a client which only knows this key does not ask too early.
		ms := (e.RetryAfter + time.Millisecond - 1) / time.Millisecond
		put(wireRetryAfterMS, strconv.FormatInt(int64(ms), 10))
	}
	return metadata
}

// ToStatus turns an error into what a gRPC call answers. An *Error keeps its reason and every field, in a
// google.rpc.ErrorInfo and, with RetryAfter, a google.rpc.RetryInfo. A *fence.StaleError becomes STALE_TOKEN. A gRPC
// status error, such as one from a node that was forwarded to, stays as it is. Context errors become DEADLINE_EXCEEDED
// and CANCELLED. Anything else is INTERNAL without its text, which may hold what a caller should not see: log it.
func ToStatus(err error) *status.Status {
	var own *Error
	var stale *fence.StaleError
	var remote interface{ GRPCStatus() *status.Status }
	switch {
	case err == nil:
		return status.New(codes.OK, "")
	case errors.As(err, &own):
		return own.GRPCStatus()
	case errors.As(err, &stale):
		e := Errorf(ReasonStaleToken, "is below the floor %s: stop writing and acquire again", stale.Floor)
		e.Resource, e.Token = Resource(stale.Resource), stale.Have
		return e.GRPCStatus()
	case errors.As(err, &remote):
		return remote.GRPCStatus()
	case errors.Is(err, context.DeadlineExceeded):
		return status.New(codes.DeadlineExceeded, "the call ran out of time; its outcome is unknown")
	case errors.Is(err, context.Canceled):
		return status.New(codes.Canceled, "the call was cancelled; its outcome is unknown")
	}
	return Errorf(ReasonInternal, "internal error").GRPCStatus()
}

// FromStatus turns what a gRPC call answered into an error; OK is nil.
//
// A status without our ErrorInfo comes from the transport, a proxy or a foreign server. Where the request may have been
// carried out, the result matches [ErrUnknownOutcome]: a broken connection cannot tell. DEADLINE_EXCEEDED and CANCELLED
// match [context.DeadlineExceeded] or [context.Canceled], and ErrUnknownOutcome too.
func FromStatus(st *status.Status) error {
	if st.Code() == codes.OK {
		return nil
	}
	var own *Error
	var retry time.Duration
	for _, detail := range st.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == ErrorDomain && detail.GetReason() != "" {
				own = wireError(detail, st.Message())
			}
		case *errdetails.RetryInfo:
			retry = max(0, detail.GetRetryDelay().AsDuration())
		}
	}
	if own != nil {
		if retry > 0 {
			own.RetryAfter = retry
		}
		return own
	}
	return wireForeign(st, retry)
}

// wireError rebuilds an error from its ErrorInfo. It takes what it can get: an unknown reason stays as it is.
func wireError(info *errdetails.ErrorInfo, text string) *Error {
	metadata := info.GetMetadata()
	e := &Error{
		Reason:   Reason(info.GetReason()),
		Field:    metadata[wireField],
		Fix:      metadata[wireFix],
		Resource: Resource(metadata[wireResource]),
		Holder: Holder{
			Principal: Principal(metadata[wireHolderPrincipal]),
			Instance:  metadata[wireHolderInstance],
			Region:    metadata[wireHolderRegion],
		},
	}
	if token, err := fence.ParseToken(metadata[wireToken]); err == nil {
		e.Token = token
	}
	if ms, err := strconv.ParseInt(metadata[wireRetryAfterMS], 10, 64); err == nil && ms > 0 && ms < int64(24*time.Hour/time.Millisecond) {
		e.RetryAfter = time.Duration(ms) * time.Millisecond
	}
	e.Message = wireMessage(e, text)
	return e
}

// wireMessage takes the message out of the text that Error made of it.
func wireMessage(e *Error, text string) string {
	text = strings.TrimPrefix(text, string(e.Reason))
	if e.Fix != "" {
		text = strings.TrimSuffix(text, "; "+e.Fix)
	}
	text = strings.TrimPrefix(text, ": ")
	if e.Field != "" {
		text = strings.TrimPrefix(strings.TrimPrefix(text, e.Field), " ")
	}
	return text
}

// wireForeign maps a status that no Writ node wrote.
func wireForeign(st *status.Status, retry time.Duration) error {
	reason := ReasonUnknownOutcome
	switch st.Code() {
	case codes.DeadlineExceeded:
		return &wireContextError{text: st.Message(), cause: context.DeadlineExceeded}
	case codes.Canceled:
		return &wireContextError{text: st.Message(), cause: context.Canceled}
	case codes.Unauthenticated:
		reason = ReasonUnauthenticated
	case codes.PermissionDenied:
		reason = ReasonDenied
	case codes.InvalidArgument:
		reason = ReasonInvalid
	case codes.NotFound:
		reason = ReasonNotFound
	case codes.ResourceExhausted:
		reason = ReasonLimit
	case codes.Unimplemented, codes.FailedPrecondition, codes.OutOfRange, codes.AlreadyExists:
		reason = ReasonInternal
	}
	return &Error{Reason: reason, Message: st.Message(), RetryAfter: retry}
}

// wireContextError is a call that ended by its context: nobody knows whether it was carried out.
type wireContextError struct {
	text  string
	cause error
}

func (e *wireContextError) Error() string {
	if e.text == "" || e.text == e.cause.Error() {
		return e.cause.Error()
	}
	return e.cause.Error() + ": " + e.text
}

func (e *wireContextError) Unwrap() error { return e.cause }

func (e *wireContextError) Is(target error) bool { return target == error(ErrUnknownOutcome) }

// FromError turns the error of a gRPC call into one of this package, see [FromStatus]. Other errors stay as they are.
func FromError(err error) error {
	var own *Error
	var remote interface{ GRPCStatus() *status.Status }
	if err == nil || errors.As(err, &own) || !errors.As(err, &remote) {
		return err
	}
	return FromStatus(remote.GRPCStatus())
}

// The handlers of a gRPC server may return an *Error directly.
var _ interface{ GRPCStatus() *status.Status } = (*Error)(nil)

package fencegrpc

import (
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

// ErrorDomain is the domain of the google.rpc.ErrorInfo of every refusal.
const ErrorDomain = "writ.io"

// Keys of the metadata in google.rpc.ErrorInfo.
const (
	keyResource = "resource"
	keyToken    = "token"
	keyFloor    = "floor"
	keyObstacle = "obstacle"
	keyField    = "field"
	keyValue    = "value"
	keyFix      = "fix"
)

// codeOf is the canonical code of a refusal.
func codeOf(p fence.Problem) codes.Code {
	switch p.Status {
	case http.StatusPreconditionFailed, http.StatusPreconditionRequired:
		return codes.FailedPrecondition
	case http.StatusBadRequest:
		return codes.InvalidArgument
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusNotFound:
		return codes.NotFound
	case http.StatusNotImplemented:
		return codes.Unimplemented
	case http.StatusServiceUnavailable:
		return codes.Unavailable
	}
	return codes.Internal
}

// Status describes a refusal, which must not be nil. The text of an error that is not one of package fence's is kept from
// the caller.
func Status(refusal error) *status.Status {
	p := fence.ProblemFor(refusal)
	info := &errdetails.ErrorInfo{Reason: p.Reason, Domain: ErrorDomain, Metadata: map[string]string{}}
	for key, value := range map[string]string{
		keyResource: p.Resource, keyToken: p.Token, keyFloor: p.Floor, keyObstacle: p.Obstacle,
		keyField: p.Field, keyValue: p.Value, keyFix: p.Fix,
	} {
		if value != "" {
			info.Metadata[key] = strings.ToValidUTF8(value, "\ufffd")
		}
	}
	details := []protoadapt.MessageV1{info}
	if p.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(p.RetryAfter)})
	}
	text := p.Detail
	if text == "" {
		text = p.Title
	}
	st, err := status.New(codeOf(p), strings.ToValidUTF8(text, "\ufffd")).WithDetails(details...)
	if err != nil {
		panic("fencegrpc: " + err.Error()) // no code is OK, and every string is valid UTF-8
	}
	return st
}

// Error makes the error of a call match the errors of package fence where its status is a guard's refusal. It keeps the
// status. Other errors stay as they are, and nil is nil.
func Error(err error) error {
	st, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	var p fence.Problem
	for _, detail := range st.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() != ErrorDomain {
				continue
			}
			m := d.GetMetadata()
			p.Reason, p.Resource, p.Token, p.Floor, p.Obstacle = d.GetReason(), m[keyResource], m[keyToken], m[keyFloor], m[keyObstacle]
			p.Field, p.Value, p.Fix, p.Detail = m[keyField], m[keyValue], m[keyFix], st.Message()
		case *errdetails.RetryInfo:
			p.RetryAfter = min(max(0, d.GetRetryDelay().AsDuration()), maxRetry)
		}
	}
	if p.Reason == fence.ReasonInternal {
		return err // of what, nobody said
	}
	refusal := p.Err()
	if refusal == nil {
		return err
	}
	return &refused{refusal: refusal, status: st}
}

// maxRetry bounds what is believed of a delay.
const maxRetry = 24 * time.Hour

// refused is a refusal that came over the wire.
type refused struct {
	refusal error
	status  *status.Status
}

func (r *refused) Error() string {
	return "rpc refused with code " + strconv.Quote(r.status.Code().String()) + ": " + r.refusal.Error()
}

// Unwrap returns the error of package fence.
func (r *refused) Unwrap() error { return r.refusal }

// GRPCStatus returns the status as it came.
func (r *refused) GRPCStatus() *status.Status { return r.status }

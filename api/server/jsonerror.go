package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/writ-io/writ/lease"
)

// errorBody is an error in JSON. Members that do not apply are left out.
type errorBody struct {
	Error struct {
		Code     string      `json:"code"`             // canonical gRPC code, such as ABORTED
		Reason   string      `json:"reason,omitempty"` // as in the error table
		Message  string      `json:"message"`
		Field    string      `json:"field,omitempty"`
		Fix      string      `json:"fix,omitempty"`
		Resource string      `json:"resource,omitempty"`
		Holder   *holderBody `json:"holder,omitempty"`
		Token    string      `json:"token,omitempty"` // decimal
		// TokenText is the token for people.
		TokenText string `json:"tokenText,omitempty"`
		// RetryAfter is a protobuf duration, such as 0.100s.
		RetryAfter string `json:"retryAfter,omitempty"`
	} `json:"error"`
}

type holderBody struct {
	Principal string `json:"principal"`
	Instance  string `json:"instance"`
	Region    string `json:"region"`
}

func errorJSON(err error) []byte {
	var body errorBody
	b := &body.Error
	st := lease.ToStatus(err)
	b.Code = code.Code(st.Code()).String()
	b.Message = st.Message()
	var own *lease.Error
	if errors.As(lease.FromStatus(st), &own) {
		b.Reason, b.Message, b.Field, b.Fix = string(own.Reason), own.Message, own.Field, own.Fix
		b.Resource = string(own.Resource)
		if own.Holder != (lease.Holder{}) {
			b.Holder = &holderBody{string(own.Holder.Principal), own.Holder.Instance, own.Holder.Region}
		}
		if own.Token != 0 {
			b.Token, b.TokenText = own.Token.Decimal(), own.Token.String()
		}
		if own.RetryAfter > 0 {
			b.RetryAfter = strconv.FormatFloat(own.RetryAfter.Seconds(), 'f', 3, 64) + "s"
		}
	}
	data, jsonErr := json.Marshal(&body)
	if jsonErr != nil {
		panic("server: an error body is always JSON: " + jsonErr.Error())
	}
	return data
}

// writeError answers with an error. status is the HTTP status of err's reason, unless HTTP has a better one.
func writeError(w http.ResponseWriter, status int, err error) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	var own *lease.Error
	if errors.As(lease.FromError(err), &own) && own.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(own.RetryAfter.Seconds()))))
	}
	w.WriteHeader(status)
	_, _ = w.Write(append(errorJSON(err), '\n')) // a reader that has gone needs no answer
}

// gatewayError answers for a call that failed, and for a request that did not become a call.
func gatewayError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
	var routed *runtime.HTTPStatusError
	if errors.As(err, &routed) {
		writeError(w, routed.HTTPStatus, lease.Invalid("path", routed.Err.Error(), "encode the path as URLs are"))
		return
	}
	if st := status.Convert(err); st.Code() == codes.InvalidArgument && !ours(st) {
		err = explain(st.Message())
	}
	writeError(w, lease.HTTPStatus(err), err)
}

func routingError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, httpStatus int) {
	if httpStatus == http.StatusMethodNotAllowed {
		writeError(w, httpStatus, lease.Invalid("method", r.Method+" is not possible here", "see the API reference for the method of "+r.URL.Path))
		return
	}
	writeError(w, httpStatus, lease.Errorf(lease.ReasonNotFound, "%s %s is not part of the API", r.Method, r.URL.Path))
}

var (
	unknownField = regexp.MustCompile(`(unknown|duplicate) field "([^"]*)"`)
	wrongValue   = regexp.MustCompile(`invalid value for \S+ field "?([\w.]+)"?: (.*)`)
)

// explain reads the text of a decoder, which is all that the gateway leaves of its error.
func explain(text string) *lease.Error {
	text = strings.ToValidUTF8(strings.ReplaceAll(text, "\u00a0", " "), "\uFFFD")
	if m := unknownField.FindStringSubmatch(text); m != nil {
		name := cmp.Or(m[2], `""`)
		if m[1] == "duplicate" {
			return lease.Invalid(name, "is given twice", "give it once")
		}
		return lease.Invalid(name, "is not a field of this request", "remove or correct it")
	}
	if m := wrongValue.FindStringSubmatch(text); m != nil {
		return lease.Invalid(m[1], "has the wrong type: "+m[2], "numbers of 64 bits may be strings, durations end in s, bytes are base64")
	}
	return lease.Invalid("request", "cannot be read: "+text, "send one JSON object with the fields of the request")
}

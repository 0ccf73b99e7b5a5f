package extauthz

import (
	"context"
	"net/http"
	"net/textproto"
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard/external"
)

// HeaderAdmitted is the header that tells the storage the token that a request was admitted under.
const HeaderAdmitted = "writ-admitted"

// maxHeaders bounds the headers of a request.
const maxHeaders = 1024

// Service is the authorization service. It is safe for concurrent use.
type Service struct {
	authv3.UnimplementedAuthorizationServer
	judge *external.Judge
}

var _ authv3.AuthorizationServer = (*Service)(nil)

// NewService returns the service that decides as judge does.
func NewService(judge *external.Judge) *Service { return &Service{judge: judge} }

// Register adds the service to a gRPC server.
func Register(registrar grpc.ServiceRegistrar, judge *external.Judge) {
	authv3.RegisterAuthorizationServer(registrar, NewService(judge))
}

// Check implements the service. It never fails: what cannot be decided is denied.
func (s *Service) Check(ctx context.Context, request *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	original, err := originalOf(request)
	if err != nil {
		return denied(err), nil
	}
	verdict, err := s.judge.Decide(ctx, original)
	if err != nil {
		return denied(err), nil
	}
	return allowed(verdict), nil
}

// originalOf reads the request that Envoy describes.
func originalOf(request *authv3.CheckRequest) (external.Request, error) {
	described := request.GetAttributes().GetRequest().GetHttp()
	if described == nil {
		return external.Request{}, unsupported("http", "must be given: use the HTTP filter, not the network filter")
	}
	header, err := headerOf(described)
	return external.Request{
		Method: described.GetMethod(), Target: described.GetPath(), Host: described.GetHost(), Header: header,
	}, err
}

// headerOf reads the headers in either of Envoy's forms. Envoy gives names in small letters.
func headerOf(described *authv3.AttributeContext_HttpRequest) (http.Header, error) {
	raw := described.GetHeaderMap().GetHeaders()
	if len(raw)+len(described.GetHeaders()) > maxHeaders {
		return nil, unsupported("headers", "must be at most "+strconv.Itoa(maxHeaders))
	}
	header := make(http.Header, len(raw)+len(described.GetHeaders()))
	for name, value := range described.GetHeaders() {
		add(header, name, value)
	}
	for _, h := range raw {
		value := h.GetValue()
		if len(h.GetRawValue()) > 0 {
			value = string(h.GetRawValue())
		}
		add(header, h.GetKey(), value)
	}
	return header, nil
}

func add(header http.Header, name, value string) {
	if len(name) > 0 && name[0] == ':' {
		return // a pseudo header: the attributes say the same
	}
	key := textproto.CanonicalMIMEHeaderKey(name)
	header[key] = append(header[key], value)
}

func unsupported(field, fix string) error {
	return &fence.InvalidError{Kind: fence.ErrUnsupported, Field: field, Fix: fix}
}

func allowed(verdict external.Verdict) *authv3.CheckResponse {
	ok := &authv3.OkHttpResponse{
		HeadersToRemove: []string{"writ", "writ-token", HeaderAdmitted},
	}
	if !verdict.Token.IsZero() {
		// It overwrites what the caller may have said; removal would come after it.
		ok.Headers = []*corev3.HeaderValueOption{option(HeaderAdmitted, verdict.Token.Decimal())}
		ok.HeadersToRemove = ok.HeadersToRemove[:2]
	}
	return &authv3.CheckResponse{
		Status:       &status.Status{Code: int32(codes.OK)},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: ok},
	}
}

func denied(err error) *authv3.CheckResponse {
	p := fence.ProblemFor(err)
	headers := []*corev3.HeaderValueOption{
		option("content-type", fence.ProblemContentType), option("cache-control", "no-store"),
	}
	if seconds := p.RetryAfterSeconds(); seconds > 0 {
		headers = append(headers, option("retry-after", strconv.Itoa(seconds)))
	}
	return &authv3.CheckResponse{
		Status: &status.Status{Code: int32(codeOf(p)), Message: p.Title},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status:  &typev3.HttpStatus{Code: typev3.StatusCode(p.Status)},
			Headers: headers,
			Body:    string(p.JSON()),
		}},
	}
}

// option sets a header in the place of any other of its name.
func option(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: name, Value: value},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

// codeOf is the canonical code of a refusal. Envoy looks only whether it is OK.
func codeOf(p fence.Problem) codes.Code {
	switch p.Status {
	case http.StatusPreconditionFailed, http.StatusPreconditionRequired:
		return codes.FailedPrecondition
	case http.StatusServiceUnavailable:
		return codes.Unavailable
	case http.StatusBadRequest, http.StatusNotImplemented:
		return codes.InvalidArgument
	case http.StatusNotFound:
		return codes.NotFound
	}
	return codes.PermissionDenied
}

package extauthz_test

import (
	"encoding/json"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard/external"
	"github.com/writ-io/writ/fence/guard/external/extauthz"
	"github.com/writ-io/writ/fence/guard/external/externaltest"
	"github.com/writ-io/writ/fence/guard/route"
)

const resource = "orders"

// newJudge answers a judge whose region holds 1.7.
func newJudge(t testing.TB, gate *externaltest.Gate) *external.Judge {
	t.Helper()
	judge, err := external.NewJudge(external.Config{
		Admitter: gate, Routes: externaltest.Routes(t, resource), Timeout: time.Second,
		Stamper: externaltest.Stamper{},
	})
	if err != nil {
		t.Fatal(err)
	}
	return judge
}

// dial starts a real server and answers a client of it.
func dial(t *testing.T, gate *externaltest.Gate) authv3.AuthorizationClient {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	extauthz.Register(server, newJudge(t, gate))
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(listener); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(func() { server.Stop(); serving.Wait() })
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return authv3.NewAuthorizationClient(conn)
}

// describe is what Envoy sends about a request.
func describe(method, path string, headers map[string]string) *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{
		Http: &authv3.AttributeContext_HttpRequest{
			Method: method, Path: path, Host: "storage", Scheme: "http", Protocol: "HTTP/1.1", Headers: headers,
		},
	}}}
}

func TestCheckLetsThroughWhatIsAdmitted(t *testing.T) {
	gate := externaltest.New(t, resource)
	client := dial(t, gate)
	writ := gate.Sign(t, resource, externaltest.Token(t, 5))
	raw := describe("POST", "/orders/1?x=1", nil)
	raw.Attributes.Request.Http.HeaderMap = &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
		{Key: ":path", RawValue: []byte("/orders/1?x=1")}, {Key: "writ", RawValue: []byte(writ)},
	}}
	for name, request := range map[string]*authv3.CheckRequest{
		"joined": describe("POST", "/orders/1", map[string]string{":path": "/orders/1", "writ": writ}),
		"raw":    raw,
	} {
		response, err := client.Check(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		ok := response.GetOkResponse()
		if response.GetStatus().GetCode() != int32(codes.OK) || ok == nil {
			t.Fatalf("%s: denied: %v", name, response)
		}
		if got := ok.GetHeadersToRemove(); !slices.Contains(got, "writ") || !slices.Contains(got, "writ-token") {
			t.Errorf("%s: removes %v, so the storage sees the credential", name, got)
		}
		if got := ok.GetHeaders(); len(got) != 1 || got[0].GetHeader().GetValue() != externaltest.Token(t, 5).Decimal() ||
			got[0].GetAppendAction() != corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD {
			t.Errorf("%s: adds %v", name, got)
		}
	}
	if got := gate.Ended(); !slices.Equal(got, []fence.Outcome{fence.Broken, fence.Broken}) {
		t.Errorf("the gate was told %v; both ends are out of sight", got)
	}
}

func TestCheckPassesReads(t *testing.T) {
	gate := externaltest.New(t, resource)
	response, err := dial(t, gate).Check(t.Context(), describe("GET", "/orders/1", map[string]string{extauthz.HeaderAdmitted: "9"}))
	if err != nil {
		t.Fatal(err)
	}
	if ok := response.GetOkResponse(); ok == nil || !slices.Contains(ok.GetHeadersToRemove(), extauthz.HeaderAdmitted) {
		t.Errorf("got %v; nobody else may say what was admitted", response)
	}
	if len(gate.Ended()) != 0 {
		t.Error("a read was counted as a write")
	}
}

func TestCheckStamps(t *testing.T) {
	gate := externaltest.New(t, resource)
	client := dial(t, gate)
	response, err := client.Check(t.Context(), describe("POST", "/stamped/1", nil))
	if err != nil {
		t.Fatal(err)
	}
	if got := response.GetOkResponse().GetHeaders(); len(got) != 1 || got[0].GetHeader().GetValue() != externaltest.Token(t, 7).Decimal() {
		t.Errorf("got %v, want the region's token", response)
	}
	// The region has lost the resource, and does not know yet.
	gate.Raise(resource, externaltest.Token(t, 8))
	checkDenied(t, client, describe("POST", "/stamped/1", nil), 412, fence.ReasonStaleToken)
	// Nobody may push another token in.
	checkDenied(t, client, describe("POST", "/stamped/1", map[string]string{"writ-token": "1.9"}), 501, fence.ReasonUnsupported)
}

func checkDenied(t *testing.T, client authv3.AuthorizationClient, request *authv3.CheckRequest, status int, reason string) fence.Problem {
	t.Helper()
	response, err := client.Check(t.Context(), request)
	if err != nil {
		t.Fatalf("the call failed, so failure_mode_allow could let it pass: %v", err)
	}
	denied := response.GetDeniedResponse()
	if response.GetStatus().GetCode() == int32(codes.OK) || denied == nil {
		t.Fatalf("let through: %v", request)
	}
	var p fence.Problem
	if err := json.Unmarshal([]byte(denied.GetBody()), &p); err != nil {
		t.Fatal(err)
	}
	if int(denied.GetStatus().GetCode()) != status || p.Status != status || p.Reason != reason {
		t.Errorf("got %d, %+v; want %d and %s", denied.GetStatus().GetCode(), p, status, reason)
	}
	if h := denied.GetHeaders()[0].GetHeader(); h.GetKey() != "content-type" || h.GetValue() != fence.ProblemContentType {
		t.Errorf("first header %v", h)
	}
	return p
}

func TestCheckDenies(t *testing.T) {
	gate := externaltest.New(t, resource)
	gate.Raise(resource, externaltest.Token(t, 5))
	client := dial(t, gate)
	fresh := gate.Sign(t, resource, externaltest.Token(t, 5))
	twice := describe("POST", "/orders/1", nil)
	twice.Attributes.Request.Http.HeaderMap = &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
		{Key: "writ", RawValue: []byte(fresh)}, {Key: "writ", RawValue: []byte(fresh)},
	}}
	for _, test := range []struct {
		name    string
		request *authv3.CheckRequest
		status  int
		reason  string
	}{
		{"stale", describe("POST", "/orders/1", map[string]string{"writ": gate.Sign(t, resource, externaltest.Token(t, 4))}), 412, fence.ReasonStaleToken},
		{"none", describe("POST", "/orders/1", nil), 428, fence.ReasonNoCredential},
		{"joined", describe("POST", "/orders/1", map[string]string{"writ": fresh + "," + fresh}), 400, fence.ReasonInvalidWrit},
		{"twice", twice, 400, fence.ReasonInvalidWrit},
		{"resembling", describe("POST", "/orders/1", map[string]string{"writ": fresh, "writ_token": "1.9"}), 400, fence.ReasonInvalidWrit},
		{"bare", describe("POST", "/orders/1", map[string]string{"writ-token": "1.9"}), 400, fence.ReasonInvalidToken},
		{"no route", describe("POST", "/", map[string]string{"writ": fresh}), 404, fence.ReasonNoRoute},
		{"tunnel", describe("CONNECT", "/orders/1", map[string]string{"writ": fresh}), 501, fence.ReasonUnsupported},
		{"websocket", describe("GET", "/orders/1", map[string]string{"upgrade": "websocket"}), 501, fence.ReasonUnsupported},
		{"override", describe("GET", "/orders/1", map[string]string{"x-http-method-override": "PUT"}), 428, fence.ReasonNoCredential},
		{"small method", describe("post", "/orders/1", map[string]string{"writ": fresh}), 501, fence.ReasonUnsupported},
		{"absolute", describe("POST", "http://storage/orders/1", map[string]string{"writ": fresh}), 501, fence.ReasonUnsupported},
		{"no attributes", &authv3.CheckRequest{}, 501, fence.ReasonUnsupported},
	} {
		t.Run(test.name, func(t *testing.T) { checkDenied(t, client, test.request, test.status, test.reason) })
	}
	if got := gate.Ended(); len(got) != 0 {
		t.Errorf("%d of them were admitted", len(got))
	}
}

func TestCheckNamesTheFloor(t *testing.T) {
	gate := externaltest.New(t, resource)
	gate.Raise(resource, externaltest.Token(t, 5))
	request := describe("PUT", "/trusted/1", map[string]string{"writ-token": "1.4"})
	p := checkDenied(t, dial(t, gate), request, 412, fence.ReasonStaleToken)
	var stale *fence.StaleError
	if err := p.Err(); !errors.As(err, &stale) || stale.Have != externaltest.Token(t, 4) || stale.Floor != externaltest.Token(t, 5) {
		t.Errorf("got %+v", p)
	}
}

// A guard that does not decide in time denies; it does not fail the call.
func TestCheckDeniesWhenTheGuardIsSlow(t *testing.T) {
	gate := externaltest.New(t, resource)
	gate.Hold()
	checkDenied(t, dial(t, gate), describe("PUT", "/trusted/1", map[string]string{"writ-token": "1.4"}), 503, fence.ReasonUnavailable)
}

func FuzzCheck(f *testing.F) {
	gate := externaltest.New(f, resource)
	gate.Raise(resource, externaltest.Token(f, 5))
	stale := gate.Sign(f, resource, externaltest.Token(f, 4))
	service := extauthz.NewService(newJudge(f, gate))
	for _, request := range []*authv3.CheckRequest{
		describe("PUT", "/orders/1", map[string]string{"writ": stale}),
		describe("GET", "/orders/1", map[string]string{"upgrade": "websocket"}),
		describe("POST", "//orders/%2e%2e/1?#", map[string]string{"writ-token": "1.4", "writ_token": "1.9"}),
		{},
	} {
		seed, err := proto.Marshal(request)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var request authv3.CheckRequest
		if proto.Unmarshal(data, &request) != nil {
			return
		}
		before := len(gate.Ended())
		response, err := service.Check(t.Context(), &request)
		if err != nil {
			t.Fatalf("the call failed: %v", err)
		}
		method := request.GetAttributes().GetRequest().GetHttp().GetMethod()
		path := request.GetAttributes().GetRequest().GetHttp().GetPath()
		if response.GetOkResponse() != nil && !route.IsRead(method) && !strings.HasPrefix(path, "/open") && len(gate.Ended()) == before {
			t.Fatalf("let through without the gate: %v", &request)
		}
		if (response.GetOkResponse() == nil) == (response.GetDeniedResponse() == nil) {
			t.Fatalf("neither or both: %v", response)
		}
	})
}

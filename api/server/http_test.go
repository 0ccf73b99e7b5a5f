package server

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/quorum"
)

// rest makes a call that must succeed, and reads its answer.
func (n *node) rest(c *http.Client, method, path, body string, into proto.Message) {
	n.t.Helper()
	status, answer := n.call(c, method, path, body)
	if status != http.StatusOK {
		n.t.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
	if err := protojson.Unmarshal([]byte(answer), into); err != nil {
		n.t.Fatalf("%s %s: %v in %s", method, path, err, answer)
	}
}

func TestRESTRoundTrip(t *testing.T) {
	ca, q := newAuthority(t), newFake("a")
	n := start(t, ca, q, nil)
	c := n.web(ca.source(app))

	var acquired writv1.AcquireResponse
	n.rest(c, http.MethodPost, "/v1/leases/billing/nightly%20run:acquire", `{"ttl":"10s","requestId":"r1","region":"eu","instance":"i","wantWrit":true}`, &acquired)
	g := acquired.GetGrant()
	if g.GetResource() != "billing/nightly run" || g.GetToken() != uint64(token(7)) || g.GetHolder().GetPrincipal() != app ||
		g.GetHolder().GetRegion() != "eu" || g.GetTtl().AsDuration() != 10*time.Second {
		t.Errorf("grant %v", g)
	}
	var keys writv1.KeysResponse
	n.rest(c, http.MethodGet, "/v1/keys", "", &keys)
	set, err := fence.ParseJWKS([]byte(keys.GetJwks()))
	if err != nil {
		t.Fatal(err)
	}
	writ, err := set.Verify(g.GetWrit())
	if err != nil || writ.Resource != "billing/nightly run" || writ.Holder != app || writ.Region != "eu" || writ.Token != token(7) ||
		writ.RequestID != "r1" || writ.Issuer != "test" || !writ.IssuedAt.Equal(grantedAt) {
		t.Errorf("writ %+v, %v", writ, err)
	}

	var issued writv1.IssueWritResponse
	n.rest(c, http.MethodPost, "/v1/writs:issue", `{"resource":"a/b","token":"`+token(7).Decimal()+`"}`, &issued)
	if writ, err = set.Verify(issued.GetWrit()); err != nil || writ.Resource != "a/b" || writ.Holder != app || writ.RequestID != "r1" {
		t.Errorf("issued writ %+v, %v", writ, err)
	}
	var lost writv1.IssueWritResponse
	status, body := n.call(c, http.MethodPost, "/v1/writs:issue", `{"resource":"a/b","token":"`+token(8).Decimal()+`"}`)
	if status != http.StatusPreconditionFailed || !strings.Contains(body, "NOT_HOLDER") {
		t.Errorf("writ for a lost lease: %d %s %v", status, body, &lost)
	}

	var got writv1.GetResponse
	n.rest(c, http.MethodGet, "/v1/leases/a/b?consistency=READ_CONSISTENCY_LOCAL", "", &got)
	if l := got.GetLease(); l.GetResource() != "a/b" || l.GetState() != writv1.LeaseState_LEASE_STATE_HELD || l.GetTokenText() != "1.7" {
		t.Errorf("lease %v", l)
	}
	n.rest(c, http.MethodGet, "/v1/leases/a:b?withDeadline=true", "", &got)
	if l := got.GetLease(); l.GetResource() != "a:b" || l.GetRemaining().AsDuration() != time.Second || l.GetWaiters() != 3 {
		t.Errorf("lease with deadline %v", l)
	}
	for asked, want := range map[string]string{
		"?withCheckpoint=true": "as linearizable", "": "",
		"?withCheckpoint=true&consistency=READ_CONSISTENCY_LOCAL": "as local",
		"?withCheckpoint=true&withDeadline=true":                  "as the coordinator knows", "?withDeadline=true": "",
	} {
		var got writv1.GetResponse
		if n.rest(c, http.MethodGet, "/v1/leases/a/b"+asked, "", &got); string(got.GetLease().GetCheckpoint()) != want {
			t.Errorf("%q was answered with checkpoint %q", asked, got.GetLease().GetCheckpoint())
		}
	}
	n.rest(c, http.MethodPost, "/v1/leases/a/b:cancel", `{"requestId":"r1"}`, &writv1.CancelAcquireResponse{})
	n.rest(c, http.MethodPost, "/v1/leases:renew", `{"leases":[{"resource":"a/b","token":`+token(7).Decimal()+`}]}`, &writv1.RenewResponse{})
	n.rest(c, http.MethodPost, "/v1/leases/a/b:checkpoint", `{"token":"`+token(7).Decimal()+`","data":"`+base64.StdEncoding.EncodeToString([]byte("x"))+`"}`, &writv1.CheckpointResponse{})
	n.rest(c, http.MethodPost, "/v1/leases/a/b:release", `{"token":"`+token(7).Decimal()+`"}`, &writv1.ReleaseResponse{})
	n.rest(c, http.MethodPost, "/v1/leases/a/b:forceRelease", `{"reason":"stuck"}`, &writv1.ForceReleaseResponse{})

	var st writv1.StatusResponse
	n.rest(c, http.MethodGet, "/v1/cluster/status", "", &st)
	if st.GetNode() != "a" || st.GetCluster() != "test" || !st.GetReady() || st.GetVersion() != "v-test" || st.GetTerm() != 5 || len(st.GetNodes()) != 1 {
		t.Errorf("status %v", &st)
	}
	var added writv1.MemberAddResponse
	n.rest(c, http.MethodPost, "/v1/cluster/members:add", `{"name":"c","peerUrl":"http://c"}`, &added)
	if added.GetMemberId() != "abc" || added.GetMembers()["c"] != "http://c" {
		t.Errorf("member %v", &added)
	}
	n.rest(c, http.MethodPost, "/v1/cluster/members:remove", `{"name":"c"}`, &writv1.MemberRemoveResponse{})
	n.rest(c, http.MethodPost, "/v1/cluster/coordinator:move", `{}`, &writv1.MoveCoordinatorResponse{})
}

func TestPages(t *testing.T) {
	ca, q := newAuthority(t), newFake("a")
	names := []string{"p/1", "p/2", "p/3"}
	q.onList = func(query quorum.ListQuery) (quorum.ListPage, error) {
		page := quorum.ListPage{Revision: 42}
		for _, name := range names {
			if name > query.After && strings.HasPrefix(name, query.Prefix) {
				if len(page.Leases) == query.Limit {
					page.More = true
					break
				}
				page.Leases = append(page.Leases, lease.Info{Resource: lease.Resource(name)})
			}
		}
		return page, nil
	}
	n := start(t, ca, q, nil)
	c := n.dial(app)
	var got []string
	req := &writv1.ListRequest{Prefix: "p/", PageSize: 2}
	for {
		resp, err := c.leases.List(testContext(t), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range resp.GetLeases() {
			got = append(got, l.GetResource())
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			break
		}
	}
	if strings.Join(got, " ") != strings.Join(names, " ") {
		t.Errorf("pages hold %v, want %v", got, names)
	}
	_, err := c.leases.List(testContext(t), &writv1.ListRequest{PageToken: "???"})
	wantInvalid(t, err, "page_token")
	_, err = c.leases.List(testContext(t), &writv1.ListRequest{PageSize: 1001})
	wantInvalid(t, err, "page_size")
	_, err = c.leases.List(testContext(t), &writv1.ListRequest{Consistency: 9})
	wantInvalid(t, err, "consistency")
}

func TestJSONErrors(t *testing.T) {
	ca, q := newAuthority(t), newFake("a")
	q.onAcquire = func(_ context.Context, cmd lease.Acquire) (lease.AcquireOutcome, error) {
		return lease.AcquireOutcome{}, &lease.Error{
			Reason: lease.ReasonHeld, Message: "is held", Resource: cmd.Resource, Token: token(9), RetryAfter: 1500 * time.Millisecond,
			Holder: lease.Holder{Principal: "other", Instance: "i", Region: "eu"},
		}
	}
	n := start(t, ca, q, nil)
	c := n.web(ca.source(app))

	status, body := n.call(c, http.MethodPost, "/v1/leases/a/b:acquire", `{"ttl":"10s"}`)
	want := `{"error":{"code":"ABORTED","reason":"HELD","message":"is held","resource":"a/b","holder":{"principal":"other","instance":"i","region":"eu"},` +
		`"token":"` + token(9).Decimal() + `","tokenText":"1.9","retryAfter":"1.500s"}}` + "\n"
	if status != http.StatusConflict || body != want {
		t.Errorf("%d %s, want 409 %s", status, body, want)
	}

	for _, c2 := range []struct {
		name, method, path, body string
		status                   int
		reason, field            string
	}{
		{"unknown field", "POST", "/v1/leases/a/b:acquire", `{"ttl":"10s","colour":"red"}`, 400, "INVALID", "colour"},
		{"unknown nested field", "POST", "/v1/leases:renew", `{"leases":[{"resource":"a","tokne":1}]}`, 400, "INVALID", "tokne"},
		{"field given twice", "POST", "/v1/leases/a/b:acquire", `{"ttl":"10s","ttl":"11s"}`, 400, "INVALID", "ttl"},
		{"wrong type", "POST", "/v1/leases/a/b:release", `{"token":"many"}`, 400, "INVALID", "token"},
		{"not JSON", "POST", "/v1/leases/a/b:release", `{"token":`, 400, "INVALID", "request"},
		{"more than one object", "POST", "/v1/leases/a/b:release", `{"token":"1"}{"token":"2"}`, 400, "INVALID", "request"},
		{"missing field", "POST", "/v1/leases/a/b:acquire", `{}`, 400, "INVALID", "ttl"},
		{"no body", "POST", "/v1/leases/a/b:release", ``, 400, "INVALID", "token"},
		{"empty segment", "POST", "/v1/leases/a//b:acquire", `{"ttl":"10s"}`, 400, "INVALID", "resource"},
		{"dots", "GET", "/v1/leases/a/%2e%2e/b", ``, 400, "INVALID", "resource"},
		{"unknown parameter", "GET", "/v1/leases?prefx=a", ``, 400, "INVALID", "prefx"},
		{"unknown parameter of a watch", "GET", "/v1/leases:watch?colour=red", ``, 400, "INVALID", "colour"},
		{"bad parameter", "GET", "/v1/leases?pageSize=x", ``, 400, "INVALID", "request"},
		{"rule of the API", "POST", "/v1/leases/a/b:forceRelease", `{}`, 400, "INVALID", "reason"},
		{"unknown path", "GET", "/v2/leases", ``, 404, "NOT_FOUND", ""},
		{"unknown path of the API", "GET", "/v1/nothing", ``, 404, "NOT_FOUND", ""},
		{"wrong method", "PUT", "/v1/keys", ``, 405, "INVALID", "method"},
		{"wrong method of a probe", "POST", "/healthz", ``, 405, "INVALID", "method"},
		{"POST that poses as GET", "POST", "/v1/keys", `x=1`, 405, "INVALID", "method"},
	} {
		t.Run(c2.name, func(t *testing.T) {
			status, body := n.call(c, c2.method, c2.path, c2.body)
			var answer errorBody
			if err := json.Unmarshal([]byte(body), &answer); err != nil {
				t.Fatalf("%d %s: %v", status, body, err)
			}
			e := answer.Error
			if status != c2.status || e.Reason != c2.reason || e.Field != c2.field || e.Message == "" || (c2.reason == "INVALID" && e.Fix == "") {
				t.Errorf("%d %s, want %d, %s, field %q", status, body, c2.status, c2.reason, c2.field)
			}
		})
	}
}

// Forms and headers cannot turn one method into another.
func TestMethodsAreNotDisguised(t *testing.T) {
	ca := newAuthority(t)
	n := start(t, ca, newFake("a"), nil)
	for _, override := range []string{"", http.MethodGet} {
		req, err := http.NewRequestWithContext(testContext(t), http.MethodPost, n.url("/v1/keys"), strings.NewReader("x=1"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if override != "" {
			req.Header.Set("X-HTTP-Method-Override", override)
		}
		resp, err := n.web(ca.source(app)).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("POST disguised as GET (%q): status %d, want 405", override, resp.StatusCode)
		}
	}
}

// A page of another origin must not act with the certificate of the browser.
func TestForeignPagesAreRefused(t *testing.T) {
	ca := newAuthority(t)
	n := start(t, ca, newFake("a"), nil)
	req, err := http.NewRequestWithContext(testContext(t), http.MethodPost, n.url("/v1/leases/a/b:acquire"), strings.NewReader(`{"ttl":"10s"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Origin", "https://evil.example")
	resp, err := n.web(ca.source(app)).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("status %d, want 403", resp.StatusCode)
	}
}

func TestOpenPaths(t *testing.T) {
	ca, q := newAuthority(t), newFake("a")
	b, err := fence.GenerateSigner()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := signerKeys(b)
	if err != nil {
		t.Fatal(err)
	}
	mine, err := signerKeys(q.signer)
	if err != nil {
		t.Fatal(err)
	}
	q.setNodes(quorum.Node{Name: "a", JWKS: mine}, quorum.Node{Name: "b", JWKS: theirs}, quorum.Node{Name: "c"}, quorum.Node{Name: "d", JWKS: "broken"})
	n := start(t, ca, q, nil)
	anonymous := n.web(nil)

	if status, body := n.call(anonymous, http.MethodGet, "/healthz", ""); status != http.StatusOK || body != `{"alive":true}`+"\n" {
		t.Errorf("healthz: %d %s", status, body)
	}
	if status, body := n.call(anonymous, http.MethodGet, "/readyz", ""); status != http.StatusOK || body != `{"ready":true}`+"\n" {
		t.Errorf("readyz: %d %s", status, body)
	}
	q.setNotReady("no majority answers")
	if status, body := n.call(anonymous, http.MethodGet, "/readyz", ""); status != http.StatusServiceUnavailable || body != `{"ready":false,"reason":"no majority answers"}`+"\n" {
		t.Errorf("readyz: %d %s", status, body)
	}
	if status, _ := n.call(anonymous, http.MethodGet, "/healthz", ""); status != http.StatusOK {
		t.Errorf("healthz of a node that is not ready: %d", status)
	}
	for range 2 { // the second answer is remembered
		_, body := n.call(anonymous, http.MethodGet, "/.well-known/jwks.json", "")
		set, err := fence.ParseJWKS([]byte(body))
		if err != nil || set.Len() != 2 || !set.Has(b.KeyID()) || !set.Has(q.signer.KeyID()) {
			t.Errorf("keys %s: %v", body, err)
		}
	}
	if got := strings.Count(n.log.String(), "the keys of a node are not usable"); got != 1 {
		t.Errorf("broken keys are logged %d times, want once", got)
	}

	for _, path := range []string{"/metrics", "/v1/leases", "/v1/leases:watch", "/v1/cluster/status"} {
		status, body := n.call(anonymous, http.MethodGet, path, "")
		if status != http.StatusUnauthorized || !strings.Contains(body, "UNAUTHENTICATED") {
			t.Errorf("%s without a certificate: %d %s", path, status, body)
		}
	}
}

func TestMetrics(t *testing.T) {
	ca := newAuthority(t)
	n := start(t, ca, newFake("a"), nil)
	if _, err := n.dial(app).leases.Acquire(testContext(t), acquireRequest("a/b")); err != nil {
		t.Fatal(err)
	}
	status, body := n.call(n.web(ca.source(app)), http.MethodGet, "/metrics", "")
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	for _, want := range []string{
		`grpc_server_handled_total{grpc_code="OK",grpc_method="Acquire",grpc_service="writ.v1.LeaseService",grpc_type="unary"} 1`,
		`grpc_server_handling_seconds_count{grpc_method="Acquire",grpc_service="writ.v1.LeaseService",grpc_type="unary"} 1`,
		`writ_server_refused_total{by="rate"} 0`,
		`writ_server_forward_attempts_total{outcome="given_up"} 0`,
		`writ_server_renew_batch_leases_count 0`,
		`writ_server_watches 0`,
		`go_gc_heap_live_bytes `,
		`writ_server_certificate_not_after_seconds `,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}

// A stream on which nothing happens for longer than a write may take stays open; a reader that is asleep does not.
func TestPacedWriter(t *testing.T) {
	const short = 20 * time.Millisecond // for the reader that is asleep: what must arrive may take longer
	const timeout = 500 * time.Millisecond
	asleep := make(chan error, 1)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/asleep" {
			paced := newPacedWriter(w, short)
			defer paced.finish()
			for {
				if _, err := paced.Write(make([]byte, 1<<20)); err != nil {
					asleep <- err
					return
				}
			}
		}
		paced := newPacedWriter(w, timeout)
		defer paced.finish()
		controller := http.NewResponseController(paced)
		for range 2 {
			if _, err := io.WriteString(paced, "x"); err != nil {
				t.Error(err)
			}
			if err := controller.Flush(); err != nil {
				t.Error(err)
			}
			<-time.After(2 * timeout)
		}
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	defer server.CloseClientConnections()
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		c := server.Client()
		c.Transport.(*http.Transport).ForceAttemptHTTP2 = protocol == "HTTP/2.0"
		if protocol == "HTTP/1.1" {
			c = &http.Client{Transport: &http.Transport{TLSClientConfig: c.Transport.(*http.Transport).TLSClientConfig.Clone()}}
			c.Transport.(*http.Transport).TLSClientConfig.NextProtos = []string{"http/1.1"}
		}
		resp, err := c.Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || string(body) != "xx" || resp.Proto != protocol {
			t.Errorf("%s: %q, %v over %s", protocol, body, err, resp.Proto)
		}
		if resp, err = c.Get(server.URL + "/asleep"); err != nil {
			t.Fatal(err)
		}
		if err := <-asleep; err == nil {
			t.Error("no error for a reader that is asleep")
		}
		_ = resp.Body.Close()
		c.CloseIdleConnections()
	}
}

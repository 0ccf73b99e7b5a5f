package authrequest_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/writ-io/writ/fence/guard/external"
	"github.com/writ-io/writ/fence/guard/external/authrequest"
	"github.com/writ-io/writ/fence/guard/external/externaltest"
)

// A subrequest that leaves open what it is about lets nothing through, not even what would be a read.
func TestIncompleteSubrequestsAreRefused(t *testing.T) {
	gate := externaltest.New(t, resource)
	judge, err := external.NewJudge(external.Config{Admitter: gate, Routes: externaltest.Routes(t, resource), Stamper: externaltest.Stamper{}})
	if err != nil {
		t.Fatal(err)
	}
	handler := authrequest.Handler(judge)
	whole := http.Header{"X-Original-Method": {"GET"}, "X-Original-Uri": {"/orders/1"}, "X-Original-Host": {"store"}}
	ask := func(h http.Header) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header = h
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w
	}
	if w := ask(whole); w.Code != http.StatusNoContent {
		t.Fatalf("status %d", w.Code)
	}
	for name := range whole {
		for what, values := range map[string][]string{"missing": nil, "twice": {whole[name][0], whole[name][0]}} {
			h := whole.Clone()
			if h[name] = values; values == nil {
				delete(h, name)
			}
			w := ask(h)
			if w.Code != http.StatusForbidden || w.Header().Get("Writ-Status") != "501" || !strings.Contains(w.Header().Get("Writ-Problem"), name) {
				t.Errorf("%s %s: status %d, header %v", name, what, w.Code, w.Header())
			}
		}
	}
	upgrade := whole.Clone()
	upgrade.Set("X-Original-Upgrade", "websocket")
	if w := ask(upgrade); w.Code != http.StatusForbidden {
		t.Errorf("an upgrade: status %d", w.Code)
	}
}

// FuzzHandler: whatever a subrequest says, the answer is one that nginx understands, and a header is a header.
func FuzzHandler(f *testing.F) {
	gate := externaltest.New(f, resource)
	gate.Raise(resource, externaltest.Token(f, 5))
	judge, err := external.NewJudge(external.Config{Admitter: gate, Routes: externaltest.Routes(f, resource), Stamper: externaltest.Stamper{}})
	if err != nil {
		f.Fatal(err)
	}
	handler := authrequest.Handler(judge)
	f.Add("PUT", "/orders/1", "store", "1.4", "")
	f.Add("GET", "/trusted/1?x=\xff", "sto\r\nre", "9223372036854775808", "h2c")
	f.Add("put", "//orders/%2e%2e/", "[::1]:80", "1.9,1.9", "\x00")
	f.Fuzz(func(t *testing.T, method, uri, host, token, upgrade string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header = http.Header{
			"X-Original-Method": {method}, "X-Original-Uri": {uri}, "X-Original-Host": {host}, "Writ-Token": {token}, "X-Original-Upgrade": {upgrade},
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		problem := w.Header().Get("Writ-Problem")
		if (w.Code == http.StatusNoContent) != (problem == "") || w.Code != http.StatusNoContent && w.Code != http.StatusForbidden {
			t.Fatalf("status %d with problem %q", w.Code, problem)
		}
		if i := strings.IndexFunc(problem, func(r rune) bool { return r < ' ' || r > '~' }); i >= 0 || len(problem) > 7<<10 {
			t.Fatalf("a header of %d bytes that no HTTP has: %q", len(problem), problem)
		}
	})
}

package agent

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// Hooks and probes over https trust the authority that is named, and no other.
func TestHooksTrustTheirAuthority(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	other := httptest.NewTLSServer(nil)
	defer other.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	hook, err := Hook{Kind: "promote", URL: server.URL, TLS: ClientTLS{CA: ca}}.build("hooks[0]", writv1.HookKind_HOOK_KIND_PROMOTE)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hook.Run(t.Context(), &writv1.Task{}); err != nil {
		t.Error(err)
	}
	probe, err := Probe{URL: server.URL, TLS: ClientTLS{CA: ca}}.build("probe")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := probe.Look(t.Context()); err != nil {
		t.Error(err)
	}
	hook, err = Hook{Kind: "promote", URL: server.URL}.build("hooks[0]", writv1.HookKind_HOOK_KIND_PROMOTE)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hook.Run(t.Context(), &writv1.Task{}); err == nil {
		t.Error("an authority that nobody named is trusted")
	}
	if _, err := (ClientTLS{CA: "/nowhere"}).client("tls"); err == nil {
		t.Error("a file that is not there is taken")
	}
}

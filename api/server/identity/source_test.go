package identity

import (
	"crypto/tls"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/writ-io/writ/lease/clock"
)

// The files are looked at on a handshake, at most once a second.
func TestFilesAreFollowed(t *testing.T) {
	ca, err := NewCA(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	subject := Subject{Name: "server", DNS: []string{"a.example"}}
	files, err := ca.Issue(subject)
	if err != nil {
		t.Fatal(err)
	}
	manual := clock.NewManual(1)
	manual.SetWall(time.Now())
	source, err := open(files, hclog.NewNullLogger(), manual)
	if err != nil {
		t.Fatal(err)
	}
	present := func() string {
		t.Helper()
		config, err := source.ServerConfig(tls.NoClientCert).GetConfigForClient(nil)
		if err != nil {
			t.Fatal(err)
		}
		return config.Certificates[0].Leaf.SerialNumber.String()
	}
	first := present()
	if _, err := ca.Issue(subject); err != nil {
		t.Fatal(err)
	}
	manual.Advance(checkEvery - time.Nanosecond)
	if present() != first {
		t.Error("the files were looked at within a second")
	}
	manual.Advance(time.Nanosecond)
	if present() == first {
		t.Error("the files were not looked at after a second")
	}
}

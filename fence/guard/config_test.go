package guard_test

import (
	"crypto/tls"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/fence/guard"
	"github.com/writ-io/writ/lease/clock"
)

func TestConfigNamesWhatIsWrong(t *testing.T) {
	good := guard.Config{
		Name: "g", Covers: []string{"orders"}, Store: filepath.Join(t.TempDir(), "floors"), Endpoints: []string{"a:1"}, Insecure: true,
	}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 65)
	for want, change := range map[string]func(*guard.Config){
		"Name":            func(c *guard.Config) { c.Name = "" },
		"Name ":           func(c *guard.Config) { c.Name = long },
		"Store":           func(c *guard.Config) { c.Store = "" },
		"Endpoints":       func(c *guard.Config) { c.Endpoints = nil },
		"Endpoints ":      func(c *guard.Config) { c.Endpoints = []string{"a:1", ""} },
		"CertFile":        func(c *guard.Config) { c.Insecure, c.CertFile = false, "x" },
		"CertFile ":       func(c *guard.Config) { c.Insecure, c.KeyFile = false, "x" },
		"Insecure":        func(c *guard.Config) { c.CAFile = "x" },
		"TLS":             func(c *guard.Config) { c.Insecure, c.TLS, c.CAFile = false, &tls.Config{}, "x" },
		"Region":          func(c *guard.Config) { c.Region = long },
		"Region ":         func(c *guard.Config) { c.Stamps = []string{"orders"} },
		"Form":            func(c *guard.Config) { c.Form = long },
		"SoftwareVersion": func(c *guard.Config) { c.SoftwareVersion = long },
		"Stamps":          func(c *guard.Config) { c.Region, c.Stamps = "eu", make([]string, 257) },
		"OpenWait":        func(c *guard.Config) { c.OpenWait = -1 },
		"Covers":          func(c *guard.Config) { c.Covers = nil },
		"Covers[0]":       func(c *guard.Config) { c.Covers = []string{"a*b"} },
		"Slack":           func(c *guard.Config) { c.Slack = -time.Second },
		"Drift":           func(c *guard.Config) { c.Drift = clock.Drift{PPM: -1} },
		"MaxParked":       func(c *guard.Config) { c.MaxParked = -1 },
		"MaxParkTime":     func(c *guard.Config) { c.MaxParkTime = -1 },
	} {
		c := good
		change(&c)
		err := c.Validate()
		if !errors.Is(err, guard.ErrConfig) || !strings.Contains(err.Error(), strings.TrimSpace(want)) || !strings.Contains(err.Error(), ": ") {
			t.Errorf("%s: %v", want, err)
		}
		if _, again := guard.New(c); again == nil || again.Error() != err.Error() {
			t.Errorf("%s: New says %v", want, again)
		}
	}
	missing := good
	missing.Insecure, missing.CAFile = false, "/nowhere/ca.pem"
	if _, err := guard.New(missing); !errors.Is(err, guard.ErrConfig) || !strings.Contains(err.Error(), "CAFile") {
		t.Errorf("%v", err)
	}
}

package lease_test

import (
	"crypto/tls"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/lease/clock"
)

func TestConfigValidate(t *testing.T) {
	good := func() lease.Config { return lease.Config{Endpoints: []string{"a:7411", "unix:///run/writ.sock"}} }
	for name, c := range map[string]struct {
		change func(*lease.Config)
		field  string // "" for valid
	}{
		"minimal":             {func(*lease.Config) {}, ""},
		"insecure":            {func(c *lease.Config) { c.Insecure = true }, ""},
		"files":               {func(c *lease.Config) { c.CAFile, c.CertFile, c.KeyFile = "a", "b", "c" }, ""},
		"tls":                 {func(c *lease.Config) { c.TLS = &tls.Config{} }, ""},
		"long attempts":       {func(c *lease.Config) { c.AttemptTimeout = time.Minute }, ""},
		"no endpoint":         {func(c *lease.Config) { c.Endpoints = nil }, "Endpoints"},
		"empty endpoint":      {func(c *lease.Config) { c.Endpoints = []string{""} }, "Endpoints"},
		"blank":               {func(c *lease.Config) { c.Endpoints = []string{" a:1"} }, "Endpoints"},
		"no port":             {func(c *lease.Config) { c.Endpoints = []string{"a"} }, "Endpoints"},
		"twice":               {func(c *lease.Config) { c.Endpoints = []string{"a:1", "a:1"} }, "Endpoints"},
		"insecure and files":  {func(c *lease.Config) { c.Insecure, c.CAFile = true, "a" }, "Insecure"},
		"insecure and tls":    {func(c *lease.Config) { c.Insecure, c.TLS = true, &tls.Config{} }, "Insecure"},
		"tls and files":       {func(c *lease.Config) { c.TLS, c.CAFile = &tls.Config{}, "a" }, "TLS"},
		"certificate alone":   {func(c *lease.Config) { c.CertFile = "a" }, "CertFile"},
		"key alone":           {func(c *lease.Config) { c.KeyFile = "a" }, "CertFile"},
		"long region":         {func(c *lease.Config) { c.Region = strings.Repeat("r", lease.MaxRegionBytes+1) }, "Region"},
		"long instance":       {func(c *lease.Config) { c.Instance = strings.Repeat("i", lease.MaxInstanceBytes+1) }, "Instance"},
		"negative dial":       {func(c *lease.Config) { c.DialTimeout = -1 }, "DialTimeout"},
		"negative attempt":    {func(c *lease.Config) { c.AttemptTimeout = -1 }, "AttemptTimeout"},
		"negative call":       {func(c *lease.Config) { c.CallTimeout = -1 }, "CallTimeout"},
		"one attempt":         {func(c *lease.Config) { c.AttemptTimeout, c.CallTimeout = time.Second, time.Second }, "AttemptTimeout"},
		"one default attempt": {func(c *lease.Config) { c.CallTimeout = time.Second }, "AttemptTimeout"},
		"drift":               {func(c *lease.Config) { c.Drift = clock.Drift{PPM: -1} }, "Drift or RenewPermille"},
		"renew late":          {func(c *lease.Config) { c.RenewPermille = 900 }, "Drift or RenewPermille"},
	} {
		cfg := good()
		c.change(&cfg)
		err := cfg.Validate()
		var why *lease.Error
		switch {
		case c.field == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.field != "" && (!errors.As(err, &why) || why.Field != c.field || why.Fix == "" || !errors.Is(err, lease.ErrInvalid)):
			t.Errorf("%s: %v, want field %s", name, err, c.field)
		}
		if c.field != "" {
			if _, err := lease.Dial(t.Context(), cfg); !errors.Is(err, lease.ErrInvalid) {
				t.Errorf("%s: Dial: %v", name, err)
			}
		}
	}
}

func TestConfigFromEnv(t *testing.T) {
	for _, name := range []string{"WRIT_ENDPOINTS", "WRIT_CA", "WRIT_CERT", "WRIT_KEY", "WRIT_REGION", "WRIT_INSECURE"} {
		t.Setenv(name, "")
	}
	if got, err := lease.ConfigFromEnv(); err != nil || !reflect.DeepEqual(got, lease.Config{}) {
		t.Errorf("empty: %+v, %v", got, err)
	}
	t.Setenv("WRIT_ENDPOINTS", "a:1, b:2,,")
	t.Setenv("WRIT_CA", "ca.pem")
	t.Setenv("WRIT_CERT", "cert.pem")
	t.Setenv("WRIT_KEY", "key.pem")
	t.Setenv("WRIT_REGION", "eu")
	want := lease.Config{Endpoints: []string{"a:1", "b:2"}, CAFile: "ca.pem", CertFile: "cert.pem", KeyFile: "key.pem", Region: "eu"}
	if got, err := lease.ConfigFromEnv(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	t.Setenv("WRIT_INSECURE", "true")
	if got, err := lease.ConfigFromEnv(); err != nil || !got.Insecure {
		t.Errorf("%+v, %v", got, err)
	}
	t.Setenv("WRIT_INSECURE", "perhaps")
	if _, err := lease.ConfigFromEnv(); !errors.Is(err, lease.ErrInvalid) {
		t.Errorf("%v", err)
	}
}

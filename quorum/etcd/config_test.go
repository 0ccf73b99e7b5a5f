package etcd

import (
	"errors"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"time"
)

func validConfig() Config {
	return Config{
		Name: "eu", DataDir: "/var/lib/writ/etcd", ListenPeerURL: "https://0.0.0.0:7413",
		AdvertisePeerURL: "https://eu.example:7413",
		InitialCluster:   map[string]string{"eu": "https://eu.example:7413", "us": "https://us.example:7413"},
		PeerTLS:          &PeerTLS{CAFile: "ca.pem", CertFile: "cert.pem", KeyFile: "key.pem"},
	}
}

func TestConfigValidate(t *testing.T) {
	if err := validConfig().Validate(); err != nil {
		t.Fatalf("the valid one: %v", err)
	}
	for name, test := range map[string]struct {
		change func(*Config)
		field  string
	}{
		"no name":               {func(c *Config) { c.Name = "" }, "name"},
		"no directory":          {func(c *Config) { c.DataDir = "" }, "data_dir"},
		"no listen address":     {func(c *Config) { c.ListenPeerURL = "" }, "peer.listen"},
		"no scheme":             {func(c *Config) { c.ListenPeerURL = "0.0.0.0:7413" }, "peer.listen"},
		"other scheme":          {func(c *Config) { c.ListenPeerURL = "unix://a:1" }, "peer.listen"},
		"no port":               {func(c *Config) { c.ListenPeerURL = "https://0.0.0.0" }, "peer.listen"},
		"a path":                {func(c *Config) { c.ListenPeerURL = "https://0.0.0.0:7413/" }, "peer.listen"},
		"a name to listen on":   {func(c *Config) { c.ListenPeerURL = "https://eu.example:7413" }, "peer.listen"},
		"advertises nowhere":    {func(c *Config) { c.AdvertisePeerURL = "https://0.0.0.0:7413" }, "peer.advertise"},
		"advertises port 0":     {func(c *Config) { c.AdvertisePeerURL = "https://eu.example:0" }, "peer.advertise"},
		"listens unspecified":   {func(c *Config) { c.AdvertisePeerURL = "" }, "peer.advertise"},
		"not in the cluster":    {func(c *Config) { c.Name = "ap" }, "initial_cluster"},
		"another address there": {func(c *Config) { c.AdvertisePeerURL = "https://eu2.example:7413" }, "initial_cluster"},
		"twice the address": {func(c *Config) {
			c.InitialCluster = map[string]string{"eu": c.AdvertisePeerURL, "us": c.AdvertisePeerURL}
		}, "initial_cluster"},
		"a nameless member": {func(c *Config) {
			c.InitialCluster = map[string]string{"eu": c.AdvertisePeerURL, "": "https://x:1"}
		}, "initial_cluster"},
		"a name that etcd cuts": {func(c *Config) {
			c.InitialCluster = map[string]string{"eu": c.AdvertisePeerURL, "u,s": "https://us.example:7413"}
		}, "initial_cluster"},
		"a peer that is no URL": {func(c *Config) {
			c.InitialCluster = map[string]string{"eu": c.AdvertisePeerURL, "us": "us"}
		}, "initial_cluster.us"},
		"an insecure peer": {func(c *Config) {
			c.InitialCluster = map[string]string{"eu": c.AdvertisePeerURL, "us": "http://us.example:7413"}
		}, "initial_cluster.us"},
		"no TLS":               {func(c *Config) { c.PeerTLS = nil }, "peer.tls"},
		"TLS without files":    {func(c *Config) { c.PeerTLS = nil; c.Insecure = true }, "peer.tls"},
		"both":                 {func(c *Config) { c.Insecure = true }, "peer.insecure"},
		"TLS over http":        {func(c *Config) { c.ListenPeerURL = "http://0.0.0.0:7413" }, "peer.listen"},
		"no authority":         {func(c *Config) { c.PeerTLS.CAFile = "" }, "peer.tls.ca"},
		"no certificate":       {func(c *Config) { c.PeerTLS.CertFile = "" }, "peer.tls.cert"},
		"no key":               {func(c *Config) { c.PeerTLS.KeyFile = "" }, "peer.tls.key"},
		"a fast heartbeat":     {func(c *Config) { c.Heartbeat = time.Millisecond }, "heartbeat"},
		"a negative heartbeat": {func(c *Config) { c.Heartbeat = -time.Second }, "heartbeat"},
		"an uneven heartbeat":  {func(c *Config) { c.Heartbeat = 300 * time.Millisecond }, "heartbeat"},
		"a part of one":        {func(c *Config) { c.Heartbeat = 5500 * time.Microsecond; c.Election = 55 * time.Millisecond }, "heartbeat"},
		"a short election":     {func(c *Config) { c.Election = 400 * time.Millisecond }, "election"},
		"a long election":      {func(c *Config) { c.Election = time.Minute }, "election"},
		"a small quota":        {func(c *Config) { c.QuotaBytes = 1 << 20 }, "quota_bytes"},
		"a negative quota":     {func(c *Config) { c.QuotaBytes = -1 }, "quota_bytes"},
	} {
		cfg := validConfig()
		test.change(&cfg)
		err := cfg.Validate()
		config := (*ConfigError)(nil)
		if !errors.As(err, &config) || config.Field != test.field || !strings.HasPrefix(err.Error(), test.field+": ") {
			t.Errorf("%s: got %v, want field %s", name, err, test.field)
		}
	}
}

func TestDirErrorSaysWhatToDo(t *testing.T) {
	for err, want := range map[error]string{
		syscall.EROFS:    "not writable",
		fs.ErrPermission: "not writable",
		syscall.ENOSPC:   "no space left for /data: free at least",
		syscall.ENOTDIR:  "is not a directory",
		syscall.EIO:      "/data: input/output error",
	} {
		got := dirError("/data", &fs.PathError{Op: "open", Path: "/data/LOCK", Err: err})
		if !errors.Is(got, err) || !strings.Contains(got.Error(), "/data") || !strings.Contains(got.Error(), strings.TrimPrefix(want, "/data: ")) {
			t.Errorf("%v: got %v, want %q", err, got, want)
		}
	}
}

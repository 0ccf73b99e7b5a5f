package tracing

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/writ-io/writ/cmd/config"
)

// Config is the section "tracing" of nodes, guards and agents.
type Config struct {
	// Endpoint is the collector's host:port for OTLP over gRPC, usually port 4317. Default: nothing is traced, unless the
	// environment has OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT; then all of OpenTelemetry's variables
	// for exporters count.
	Endpoint string `koanf:"endpoint"`
	// Insecure speaks plain text with it.
	Insecure bool `koanf:"insecure"`
	// CA, Cert and Key are PEM files: the authority to trust, and a certificate of one's own. Default: the system's
	// authorities, and none.
	CA   string `koanf:"ca"`
	Cert string `koanf:"cert"`
	Key  string `koanf:"key"`
	// Sample is the share of traces that is sent: above 0, to 1. It goes by the trace's id, so that everybody with the same
	// share sends the same ones. Default 1.
	Sample float64 `koanf:"sample"`
}

// Variables that turn tracing on without an endpoint in the configuration.
var endpointVariables = []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"}

// On reports whether anything is traced.
func (c Config) On() bool {
	if c.Endpoint != "" {
		return true
	}
	for _, name := range endpointVariables {
		if os.Getenv(name) != "" {
			return true
		}
	}
	return false
}

// Check answers the first field that cannot be used, a [*config.Error]; nil if there is none. Files are not opened.
func (c Config) Check() error {
	if c.Endpoint == "" {
		switch {
		case c.Insecure:
			return wrong("insecure", "is set without endpoint", "name the collector's host:port, or remove it")
		case c.CA != "" || c.Cert != "" || c.Key != "":
			return wrong("ca", "cert or key is set without endpoint", "name the collector's host:port, or remove them")
		}
	} else if host, port, err := net.SplitHostPort(c.Endpoint); err != nil || host == "" || port == "" || strings.Contains(host, "/") {
		return wrong("endpoint", fmt.Sprintf("is %.80q", c.Endpoint), "write host:port, such as collector:4317")
	}
	switch {
	case c.Insecure && (c.CA != "" || c.Cert != ""):
		return wrong("insecure", "is set together with ca or cert", "remove one of them")
	case (c.Cert == "") != (c.Key == ""):
		return wrong("cert", "and key go together", "name both, or neither")
	case !(c.Sample >= 0 && c.Sample <= 1):
		return wrong("sample", fmt.Sprintf("is %v", c.Sample), "use a share above 0, to 1; leave endpoint out to trace nothing")
	}
	return nil
}

func wrong(field, problem, fix string) error { return config.Wrong("tracing."+field, problem, fix) }

// tls is for an endpoint that is not insecure.
func (c Config) tls() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, wrong("ca", err.Error(), "name a PEM file")
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, wrong("ca", c.CA+" holds no certificate", "name a PEM file")
		}
	}
	if c.Cert != "" {
		if _, err := tls.LoadX509KeyPair(c.Cert, c.Key); err != nil {
			return nil, wrong("cert", "and key cannot be used: "+err.Error(), "name a PEM certificate and its key")
		}
		// Read anew for each connection, so that they may be replaced.
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
			return &pair, err
		}
	}
	return cfg, nil
}

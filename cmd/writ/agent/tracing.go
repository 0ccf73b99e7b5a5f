package agent

import (
	"github.com/hashicorp/go-hclog"

	"github.com/writ-io/writ/cmd/tracing"
)

// openTracing is nil if nothing is traced.
func (c Config) openTracing(version string, logger hclog.Logger) (*tracing.Tracer, error) {
	return tracing.Open(c.Tracing, tracing.Service{Name: "writ-agent", Instance: c.Name, Region: c.Region, Version: version}, logger.Named("tracing"))
}

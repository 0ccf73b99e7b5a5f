package node

import "github.com/writ-io/writ/cmd/config"

// format is that of the configurations of nodes.
var format = config.Format{Prefix: "WRIT_SERVER_", First: "name: eu-1", Example: "writ server --example"}

// Load reads the configuration file at path and the environment, fills defaults in and validates the outcome. Paths of
// files in it are relative to the configuration file. The error names the file, and the field and the fix of everything
// that is wrong, one to a line.
func Load(path string, environ []string) (Config, error) {
	return config.Load(format, path, environ, func(c *Config, dir string) error {
		*c = c.withDefaults()
		c.resolvePaths(dir)
		return c.Validate()
	})
}

// Parse reads a configuration from YAML and, above it, from the variables of environ ("KEY=value") that begin with
// WRIT_SERVER_. It checks that every key is known and has a value of its type, and nothing else; see [Config.Validate].
func Parse(data []byte, environ []string) (Config, error) {
	return config.Parse[Config](format, data, environ)
}

// resolvePaths makes the files that the configuration names relative to dir.
func (c *Config) resolvePaths(dir string) {
	config.Resolve(dir, &c.DataDir, &c.PolicyFile, &c.Approvers,
		&c.TLS.CA, &c.TLS.Cert, &c.TLS.Key, &c.PeerTLS.CA, &c.PeerTLS.Cert, &c.PeerTLS.Key, &c.Tracing.CA, &c.Tracing.Cert, &c.Tracing.Key)
}

func wrong(field, problem, fix string) error { return config.Wrong(field, problem, fix) }

func oneLine(err error) string { return config.OneLine(err) }

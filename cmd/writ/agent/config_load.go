package agent

import "github.com/writ-io/writ/cmd/config"

// format is that of the configurations of agents.
var format = config.Format{Prefix: "WRIT_AGENT_", First: "name: agent-eu-1", Example: "writ agent --example"}

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
// WRIT_AGENT_. It checks that every key is known and has a value of its type, and nothing else; see [Config.Validate].
func Parse(data []byte, environ []string) (Config, error) {
	return config.Parse[Config](format, data, environ)
}

func wrong(field, problem, fix string) error { return config.Wrong(field, problem, fix) }

func oneLine(err error) string { return config.OneLine(err) }

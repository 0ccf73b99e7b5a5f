// Package config reads the configuration files of Writ's programs: YAML, and above it the environment, into a struct with
// koanf tags. Every key has to be known, and whatever is wrong is told with its field and what would do.
package config

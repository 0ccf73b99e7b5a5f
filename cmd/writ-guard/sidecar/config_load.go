package sidecar

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
)

const (
	// envPrefix is that of every variable for guards.
	envPrefix = "WRIT_GUARD_"
	// maxConfigBytes is far above any configuration.
	maxConfigBytes = 1 << 20
	// keyDelimiter joins the parts of a key inside koanf. It cannot be part of one.
	keyDelimiter = "\x00"
)

// ConfigError says which field of a configuration is wrong, how, and what would do.
type ConfigError struct{ Field, Problem, Fix string }

func (e *ConfigError) Error() string { return e.Field + ": " + e.Problem + ": " + e.Fix }

func wrong(field, problem, fix string) error { return &ConfigError{field, problem, fix} }

// Load reads the configuration file at path and the environment, fills defaults in and validates the outcome. Paths of
// files in it are relative to the configuration file. The error names the file, and the field and the fix of everything
// that is wrong, one to a line.
func Load(path string, environ []string) (Config, error) {
	data, err := readConfig(path)
	if err != nil {
		return Config{}, err
	}
	config, err := Parse(data, environ)
	if err == nil {
		config = config.withDefaults()
		config.resolvePaths(filepath.Dir(path))
		err = config.Validate()
	}
	if err != nil {
		return Config{}, fmt.Errorf("configuration %s: %w", path, err)
	}
	return config, nil
}

func readConfig(path string) (data []byte, err error) {
	if path == "" {
		return nil, errors.New("no configuration: name the file with --config")
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	data, err = io.ReadAll(io.LimitReader(file, maxConfigBytes+1))
	if err == nil && len(data) > maxConfigBytes {
		err = fmt.Errorf("is larger than %d bytes", maxConfigBytes)
	}
	if err != nil {
		return nil, fmt.Errorf("configuration %s: %w", path, err)
	}
	return data, nil
}

// Parse reads a configuration from YAML and, above it, from the variables of environ ("KEY=value") that begin with
// WRIT_GUARD_. It checks that every key is known and has a value of its type, and nothing else; see Config.Validate.
func Parse(data []byte, environ []string) (config Config, err error) {
	defer func() { // the YAML parser is not ours
		if r := recover(); r != nil {
			err = wrong("configuration", fmt.Sprintf("cannot be read: %v", r), "write plain YAML")
		}
	}()
	if err := checkOneDocument(data); err != nil {
		return Config{}, err
	}
	k := koanf.New(keyDelimiter)
	if err := k.Load(rawbytes.Provider(data), yaml.Parser()); err != nil {
		return Config{}, wrong("configuration", "is not a YAML mapping: "+oneLine(err), `write keys at the top, such as "name: guard-eu-1"`)
	}
	var refused error
	variables := env.Provider(keyDelimiter, env.Opt{
		Prefix:      envPrefix,
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, value string) (string, any) {
			key, typed, err := fromEnvironment(name, value)
			refused = errors.Join(refused, err)
			k.Delete(key) // maps would be joined with those of the file
			return key, typed
		},
	})
	if err := errors.Join(k.Load(variables, nil), refused); err != nil {
		return Config{}, err
	}
	if err := decode(k, &config); err != nil {
		return Config{}, err
	}
	return config, nil
}

func decode(k *koanf.Koanf, config *Config) error {
	var seen mapstructure.Metadata
	err := k.UnmarshalWithConf("", config, koanf.UnmarshalConf{DecoderConfig: &mapstructure.DecoderConfig{
		TagName: "koanf", Result: config, Metadata: &seen, MatchName: func(key, field string) bool { return key == field },
		DecodeHook: mapstructure.ComposeDecodeHookFunc(durations),
	}})
	if len(seen.Unused) > 0 {
		// A misspelt section is also a value of the wrong type; the spelling is what helps.
		slices.Sort(seen.Unused)
		var all error
		for _, key := range seen.Unused {
			all = errors.Join(all, unknownKey(key, ""))
		}
		return all
	}
	if err != nil {
		return wrong("configuration", "has a value of the wrong type: "+oneLine(err), "compare it with: writ-guard --example")
	}
	return nil
}

// durations reads durations from text alone: a bare number would be nanoseconds.
func durations(from, to reflect.Type, value any) (any, error) {
	if to != reflect.TypeFor[time.Duration]() {
		return value, nil
	}
	text, ok := value.(string)
	if !ok {
		return nil, fmt.Errorf("%v has no unit: write a duration such as 100ms, 5s or 10m", value)
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return nil, fmt.Errorf("%q is no duration: write a number with a unit, such as 100ms, 5s or 10m", text)
	}
	return d, nil
}

// checkOneDocument refuses further documents, which a YAML parser would pass over in silence.
func checkOneDocument(data []byte) error {
	content := false
	for line := range bytes.Lines(data) {
		line = bytes.TrimRight(line, " \t\r\n")
		switch {
		case len(line) == 0 || line[0] == '#' || line[0] == '%':
		case string(line) == "---" || bytes.HasPrefix(line, []byte("--- ")):
			if content {
				return wrong("configuration", "holds more than one YAML document", "join them into one")
			}
		default:
			content = true
		}
	}
	return nil
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

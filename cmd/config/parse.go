package config

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
)

// delimiter joins the parts of a key inside koanf. It cannot be part of one: names of nodes hold dots.
const delimiter = "\x00"

// Parse reads a configuration from YAML and, above it, from the variables of environ ("KEY=value") that begin with the
// format's prefix. It checks that every key is known and has a value of its type, and nothing else.
func Parse[C any](f Format, data []byte, environ []string) (config C, err error) {
	defer func() { // the YAML parser is not ours
		if r := recover(); r != nil {
			err = Wrong("configuration", fmt.Sprintf("cannot be read: %v", r), "write plain YAML")
		}
	}()
	var none C
	if err := checkOneDocument(data); err != nil {
		return none, err
	}
	k := koanf.New(delimiter)
	if err := k.Load(rawbytes.Provider(data), yaml.Parser()); err != nil {
		return none, Wrong("configuration", "is not a YAML mapping: "+OneLine(err), fmt.Sprintf("write keys at the top, such as %q", f.First))
	}
	known := schemaOf(f, reflect.TypeFor[C]())
	var refused error
	variables := env.Provider(delimiter, env.Opt{
		Prefix:      f.Prefix,
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, value string) (string, any) {
			key, typed, err := known.variable(name, value)
			refused = errors.Join(refused, err)
			k.Delete(key) // maps would be joined with those of the file
			return key, typed
		},
	})
	if err := errors.Join(k.Load(variables, nil), refused); err != nil {
		return none, err
	}
	if err := decode(k, known, &config); err != nil {
		return none, err
	}
	return config, nil
}

func decode(k *koanf.Koanf, known schema, config any) error {
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
			all = errors.Join(all, known.unknown(key, ""))
		}
		return all
	}
	if err != nil {
		return Wrong("configuration", "has a value of the wrong type: "+OneLine(err), "compare it with: "+known.format.Example)
	}
	return nil
}

// durations reads durations from text alone: a bare number would be nanoseconds.
func durations(_, to reflect.Type, value any) (any, error) {
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
				return Wrong("configuration", "holds more than one YAML document", "join them into one")
			}
		default:
			content = true
		}
	}
	return nil
}

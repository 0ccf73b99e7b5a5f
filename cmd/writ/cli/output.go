package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"
)

// The forms of data.
const (
	outputTable = "table"
	outputJSON  = "json"
	outputYAML  = "yaml"
)

// print writes data in the chosen form. table writes it for people.
func (a *app) print(data any, table func(io.Writer)) error {
	if a.output == outputTable {
		var page bytes.Buffer
		table(&page)
		_, err := a.stdout.Write(page.Bytes())
		return err
	}
	raw, err := marshal(data)
	if err != nil {
		return err
	}
	if a.output == outputYAML {
		if raw, err = yaml.JSONToYAML(raw); err != nil {
			return err
		}
	} else {
		var out bytes.Buffer
		if err := json.Indent(&out, raw, "", "  "); err != nil {
			return err
		}
		raw = append(out.Bytes(), '\n')
	}
	_, err = a.stdout.Write(raw)
	return err
}

// printNext writes one of a stream of data: a line of JSON, a YAML document, or a line for people.
func (a *app) printNext(data any, line string) error {
	switch a.output {
	case outputTable:
		if line == "" {
			return nil
		}
		_, err := fmt.Fprintln(a.stdout, line)
		return err
	case outputYAML:
		if _, err := io.WriteString(a.stdout, "---\n"); err != nil {
			return err
		}
		return a.print(data, nil)
	}
	raw, err := marshal(data)
	if err != nil {
		return err
	}
	_, err = a.stdout.Write(append(raw, '\n'))
	return err
}

// marshal writes compact JSON. What a message does not say is left out, as protobuf JSON has it.
func marshal(data any) ([]byte, error) {
	var raw []byte
	var err error
	if m, ok := data.(proto.Message); ok {
		raw, err = protojson.Marshal(m)
	} else {
		raw, err = json.Marshal(data)
	}
	if err != nil {
		return nil, err
	}
	// protojson varies its white space on purpose.
	var out bytes.Buffer
	err = json.Compact(&out, raw)
	return out.Bytes(), err
}

// with is a message and one more field, which the message has no room for.
type with struct {
	message     proto.Message
	name, value string
}

// MarshalJSON appends the field.
func (w with) MarshalJSON() ([]byte, error) {
	raw, err := marshal(w.message)
	if err != nil {
		return nil, err
	}
	field, err := json.Marshal(map[string]string{w.name: w.value})
	if err != nil {
		return nil, err
	}
	if string(raw) == "{}" {
		return field, nil
	}
	return []byte(strings.TrimSuffix(string(raw), "}") + "," + strings.TrimPrefix(string(field), "{")), nil
}

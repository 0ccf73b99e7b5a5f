package config

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
)

// schema is what a configuration may hold.
type schema struct {
	format Format
	// keys are all known keys, joined by dots, and the types of their values. Sections are not among them, but lists of
	// sections are, beside the keys of those.
	keys map[string]reflect.Type
}

func schemaOf(f Format, config reflect.Type) schema {
	known := schema{f, map[string]reflect.Type{}}
	known.add("", config)
	return known
}

func (s schema) add(prefix string, section reflect.Type) {
	for field := range section.Fields() {
		name, option, _ := strings.Cut(field.Tag.Get("koanf"), ",")
		key := prefix + name
		switch {
		case name == "-":
		case option == "squash":
			s.add(prefix, field.Type)
		case field.Type.Kind() == reflect.Struct:
			s.add(key+".", field.Type)
		case isListOfSections(field.Type):
			s.keys[key] = field.Type
			s.add(key+".", field.Type.Elem())
		default:
			s.keys[key] = field.Type
		}
	}
}

func isListOfSections(kind reflect.Type) bool {
	return kind.Kind() == reflect.Slice && kind.Elem().Kind() == reflect.Struct
}

// Keys are all keys that a configuration may hold, joined by dots, and their sections, sorted.
func Keys[C any]() []string { return schemaOf(Format{}, reflect.TypeFor[C]()).names() }

func (s schema) names() []string {
	names := map[string]bool{}
	for key := range s.keys {
		names[key] = true
		for i, c := range key {
			if c == '.' {
				names[key[:i]] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// list is the list of sections that a key stands in, or is.
func (s schema) list(key string) (string, bool) {
	for i := range len(key) + 1 {
		if i < len(key) && key[i] != '.' {
			continue
		}
		if kind, ok := s.keys[key[:i]]; ok && isListOfSections(kind) {
			return key[:i], true
		}
	}
	return "", false
}

// variable turns a variable into a key and a value of the type that the key has.
func (s schema) variable(name, value string) (key string, typed any, err error) {
	path := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, s.format.Prefix)), "__", ".")
	if list, ok := s.list(path); ok {
		return "", nil, Wrong(name, "stands for a list of sections", "write "+list+" in the file")
	}
	kind, ok := s.keys[path]
	if !ok {
		return "", nil, s.unknown(path, name)
	}
	key = strings.ReplaceAll(path, ".", delimiter)
	switch kind.Kind() {
	case reflect.Slice:
		items := make([]any, 0, 4)
		for _, item := range splitList(value) {
			items = append(items, scalar(kind.Elem(), item))
		}
		return key, items, nil
	case reflect.Map:
		members := map[string]any{}
		for _, item := range splitList(value) {
			member, target, ok := strings.Cut(item, "=")
			if !ok {
				return "", nil, Wrong(name, fmt.Sprintf("holds %q", item), "write name=value,name=value")
			}
			members[strings.TrimSpace(member)] = scalar(kind.Elem(), strings.TrimSpace(target))
		}
		return key, members, nil
	}
	return key, scalar(kind, value), nil
}

func splitList(text string) []string {
	var items []string
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

// scalar reads a value as the YAML parser would. What it cannot read stays text and fails as a value of the wrong type.
func scalar(kind reflect.Type, text string) any {
	if kind.Kind() == reflect.String || kind == reflect.TypeFor[time.Duration]() {
		return text
	}
	parsed, err := yaml.Parser().Unmarshal([]byte("value: " + text))
	if err != nil {
		return text
	}
	return parsed["value"]
}

// index is that of an item of a list, as in routes[3].path.
var index = regexp.MustCompile(`\[[0-9]+\]`)

// unknown refuses a key and names the known one that it looks like. variable is empty for a key of the file.
func (s schema) unknown(key, variable string) error {
	plain := index.ReplaceAllString(key, "")
	best, distance := "", 4
	for _, known := range s.names() {
		if _, ok := s.list(known); ok && variable != "" {
			continue // it cannot stand in the environment
		}
		d := editDistance(plain, known)
		if last := known[strings.LastIndex(known, ".")+1:]; plain[strings.LastIndex(plain, ".")+1:] == last {
			d = min(d, 3) // the right name in the wrong place
		}
		if d < distance {
			best, distance = known, d
		}
	}
	prefix := s.format.Prefix
	fix := "remove it; " + s.format.Example + " shows every key"
	switch {
	case strings.HasPrefix(variable, prefix+"SERVICE_") || variable == prefix+"PORT" || strings.HasPrefix(variable, prefix+"PORT_"):
		fix = "Kubernetes sets it for a service of that name; give the pod enableServiceLinks: false"
	case best != "" && variable != "":
		fix = "did you mean " + prefix + strings.ToUpper(strings.ReplaceAll(best, ".", "__")) + "?"
	case best != "":
		fix = fmt.Sprintf("did you mean %s?", best)
	}
	return Wrong(cmp.Or(variable, key, `""`), "is not a known key", fix)
}

// editDistance counts the insertions, deletions and replacements of bytes that turn a into b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

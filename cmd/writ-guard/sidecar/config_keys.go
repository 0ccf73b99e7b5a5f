package sidecar

import (
	"cmp"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
)

// fromEnvironment turns a variable into a key and a value of the type that the key has.
func fromEnvironment(name, value string) (key string, typed any, err error) {
	path := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, envPrefix)), "__", ".")
	kind, ok := keys()[path]
	section, _, _ := strings.Cut(path, ".")
	if list, ok := keys()[section]; ok && isListOfSections(list) {
		return "", nil, wrong(name, "stands for a list of sections", "write "+section+" in the file")
	}
	if !ok {
		return "", nil, unknownKey(path, name)
	}
	key = strings.ReplaceAll(path, ".", keyDelimiter)
	switch kind.Kind() {
	case reflect.Slice:
		items := make([]any, 0, 4)
		for _, item := range splitList(value) {
			items = append(items, element(kind.Elem(), item))
		}
		return key, items, nil
	case reflect.String:
		return key, value, nil
	default:
		return key, scalar(kind, value), nil
	}
}

func isListOfSections(kind reflect.Type) bool {
	return kind.Kind() == reflect.Slice && kind.Elem().Kind() == reflect.Struct
}

// element reads one item of a list.
func element(kind reflect.Type, text string) any {
	if kind.Kind() == reflect.String {
		return text
	}
	return scalar(kind, text)
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
	if kind == reflect.TypeFor[time.Duration]() {
		return text
	}
	parsed, err := yaml.Parser().Unmarshal([]byte("value: " + text))
	if err != nil {
		return text
	}
	return parsed["value"]
}

// keys are all known keys, joined by dots, and the types of their values. Sections are not among them, but lists of sections
// are, beside the keys of those.
func keys() map[string]reflect.Type {
	known := map[string]reflect.Type{}
	var add func(prefix string, t reflect.Type)
	add = func(prefix string, t reflect.Type) {
		for field := range t.Fields() {
			name, option, _ := strings.Cut(field.Tag.Get("koanf"), ",")
			key := prefix + name
			switch {
			case name == "-":
			case option == "squash":
				add(prefix, field.Type)
			case field.Type.Kind() == reflect.Struct:
				add(key+".", field.Type)
			case isListOfSections(field.Type):
				known[key] = field.Type
				add(key+".", field.Type.Elem())
			default:
				known[key] = field.Type
			}
		}
	}
	add("", reflect.TypeFor[Config]())
	return known
}

// index is that of an item of a list, as in routes[3].path.
var index = regexp.MustCompile(`\[[0-9]+\]`)

// unknownKey refuses a key and names the known one that it looks like. variable is empty for a key of the file.
func unknownKey(key, variable string) error {
	best, distance := "", 4
	place := key
	key = index.ReplaceAllString(key, "")
	for _, known := range sortedKeys() {
		d := editDistance(key, known)
		if last := known[strings.LastIndex(known, ".")+1:]; key[strings.LastIndex(key, ".")+1:] == last {
			d = min(d, 3) // the right name in the wrong place
		}
		if d < distance {
			best, distance = known, d
		}
	}
	fix := "remove it; writ-guard --example shows every key"
	switch {
	case strings.HasPrefix(variable, envPrefix+"SERVICE_") || variable == envPrefix+"PORT" || strings.HasPrefix(variable, envPrefix+"PORT_"):
		fix = "Kubernetes sets it for a service of that name; give the pod enableServiceLinks: false"
	case best != "" && variable != "":
		fix = "did you mean " + envPrefix + strings.ToUpper(strings.ReplaceAll(best, ".", "__")) + "?"
	case best != "":
		fix = fmt.Sprintf("did you mean %s?", best)
	}
	return wrong(cmp.Or(variable, place, `""`), "is not a known key", fix)
}

// sortedKeys are all known keys and their sections.
func sortedKeys() []string {
	var names []string
	for key := range keys() {
		names = append(names, key)
		if section, _, ok := strings.Cut(key, "."); ok {
			names = append(names, section)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
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

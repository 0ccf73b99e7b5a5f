package node

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
)

// fromEnvironment turns a variable into a key and a value of the type that the key has.
func fromEnvironment(name, value string) (key string, typed any, err error) {
	path := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, envPrefix)), "__", ".")
	kind, ok := keys()[path]
	if !ok {
		return "", nil, unknownKey(path, name)
	}
	key = strings.ReplaceAll(path, ".", keyDelimiter)
	switch kind.Kind() {
	case reflect.Slice:
		return key, splitList(value), nil
	case reflect.Map:
		members := map[string]any{}
		for _, item := range splitList(value) {
			member, target, ok := strings.Cut(item, "=")
			if !ok {
				return "", nil, wrong(name, fmt.Sprintf("holds %q", item), "write name=URL,name=URL")
			}
			members[strings.TrimSpace(member)] = strings.TrimSpace(target)
		}
		return key, members, nil
	case reflect.String:
		return key, value, nil
	default:
		return key, scalar(kind, value), nil
	}
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

// keys are all known keys, joined by dots, and the types of their values. Sections are not among them.
func keys() map[string]reflect.Type {
	known := map[string]reflect.Type{}
	var add func(prefix string, t reflect.Type)
	add = func(prefix string, t reflect.Type) {
		for field := range t.Fields() {
			key := prefix + field.Tag.Get("koanf")
			if field.Type.Kind() == reflect.Struct {
				add(key+".", field.Type)
				continue
			}
			known[key] = field.Type
		}
	}
	add("", reflect.TypeFor[Config]())
	return known
}

// unknownKey refuses a key and names the known one that it looks like. variable is empty for a key of the file.
func unknownKey(key, variable string) error {
	best, distance := "", 4
	for _, known := range sortedKeys() {
		d := editDistance(key, known)
		if last := known[strings.LastIndex(known, ".")+1:]; key[strings.LastIndex(key, ".")+1:] == last {
			d = min(d, 3) // the right name in the wrong place
		}
		if d < distance {
			best, distance = known, d
		}
	}
	fix := "remove it; writ server --example shows every key"
	switch {
	case strings.HasPrefix(variable, envPrefix+"SERVICE_") || variable == envPrefix+"PORT" || strings.HasPrefix(variable, envPrefix+"PORT_"):
		fix = "Kubernetes sets it for a service of that name; give the pod enableServiceLinks: false"
	case best != "" && variable != "":
		fix = "did you mean " + envPrefix + strings.ToUpper(strings.ReplaceAll(best, ".", "__")) + "?"
	case best != "":
		fix = fmt.Sprintf("did you mean %s?", best)
	}
	return wrong(cmp.Or(variable, key, `""`), "is not a known key", fix)
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

package region

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// MaxFileBytes is how much the readers of files take.
const MaxFileBytes = 1 << 20

// FileError says where in a file something is wrong.
type FileError struct {
	Line int
	// Field is a path, such as regions[1].role; empty if the file could not be read that far.
	Field string
	// Problem and Fix are for people.
	Problem, Fix string
}

func (e *FileError) Error() string {
	s := fmt.Sprintf("line %d: ", e.Line)
	if e.Field != "" {
		s += e.Field + " "
	}
	s += e.Problem
	if e.Fix != "" {
		s += "; " + e.Fix
	}
	return s
}

// ParseGroups reads the specs of groups from YAML, one a document. Fields are those of GroupSpec; durations are written as
// 60s or 10m, and values of enumerations may be short, such as standby. Nothing is read over: an unknown field, one that is
// there twice, and a spec that the quorum would refuse are errors. Errors: *FileError.
func ParseGroups(file []byte) ([]*writv1.GroupSpec, error) {
	var specs []*writv1.GroupSpec
	lines := map[string]int{}
	err := parseDocuments(file, func(d *document) error {
		spec := &writv1.GroupSpec{}
		if err := d.fill(spec); err != nil {
			return err
		}
		if _, err := normal(spec); err != nil {
			return d.explain(err)
		}
		if before, twice := lines[spec.Name]; twice {
			return &FileError{Line: d.lines["name"], Field: "name", Problem: fmt.Sprintf("is %q, as that in line %d is", spec.Name, before), Fix: "give every group a name of its own"}
		}
		lines[spec.Name] = d.lines["name"]
		specs = append(specs, spec)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(specs) == 0 {
		return nil, &FileError{Line: 1, Problem: "nothing is here", Fix: "say what the group is, beginning with its name"}
	}
	return specs, nil
}

// ParseApprovers reads a set of approvers from YAML: the fields of ApproverSet, in one document. A key may be written as the
// line of an authorized_keys file alone. Errors: *FileError.
func ParseApprovers(file []byte) (*writv1.ApproverSet, error) {
	var set *writv1.ApproverSet
	err := parseDocuments(file, func(d *document) error {
		if set != nil {
			return &FileError{Line: d.root.Line, Problem: "another document begins here", Fix: "put the whole set into one"}
		}
		read := &writv1.ApproverSet{}
		if err := d.fill(read); err != nil {
			return err
		}
		if err := checkApprovers(read); err != nil {
			d.nameApprovers(read)
			return d.explain(err)
		}
		set = read
		return nil
	})
	if err != nil {
		return nil, err
	}
	if set == nil {
		return nil, &FileError{Line: 1, Problem: "nothing is here", Fix: "list the approvers, and the rule"}
	}
	return set, nil
}

// document is one document of a file, and where its fields stand in it.
type document struct {
	root  *yaml.Node
	lines map[string]int
}

func parseDocuments(file []byte, each func(*document) error) error {
	if len(file) > MaxFileBytes {
		return &FileError{Line: 1, Problem: fmt.Sprintf("the file is %d bytes long", len(file)), Fix: fmt.Sprintf("use at most %d", MaxFileBytes)}
	}
	decoder := yaml.NewDecoder(bytes.NewReader(file))
	for {
		var n yaml.Node
		err := decoder.Decode(&n)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return syntaxError(err)
		case len(n.Content) == 0 || isNull(n.Content[0]):
			continue
		}
		if err := each(&document{root: n.Content[0], lines: map[string]int{}}); err != nil {
			return err
		}
	}
}

// syntaxError takes the line out of what the reader of YAML says.
func syntaxError(err error) *FileError {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	e := &FileError{Line: 1, Problem: text, Fix: "write YAML"}
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		number, problem, _ := strings.Cut(rest, ": ")
		if line, err := strconv.Atoi(number); err == nil && problem != "" {
			e.Line, e.Problem = line, problem
		}
	}
	return e
}

// explain adds to an error about a field where the field stands, or that which it belongs to.
func (d *document) explain(err *lease.Error) *FileError {
	e := &FileError{Line: d.root.Line, Field: err.Field, Problem: err.Message, Fix: err.Fix}
	for path := err.Field; path != ""; path = path[:max(0, strings.LastIndexAny(path, ".["))] {
		if line, ok := d.lines[path]; ok {
			e.Line = line
			break
		}
	}
	return e
}

// nameApprovers lets errors be found that name approvers instead of counting them, and count keys from 1.
func (d *document) nameApprovers(set *writv1.ApproverSet) {
	for i, a := range set.Approvers {
		counted, named := fmt.Sprintf("approvers[%d]", i), fmt.Sprintf("approvers[%s]", a.Name)
		for _, field := range []string{"", ".keys", ".roles", ".principals"} {
			if line, ok := d.lines[counted+field]; ok {
				d.lines[named+field] = line
			}
		}
		for j := range a.Keys {
			key := fmt.Sprintf("%s.keys[%d]", named, j+1)
			for _, field := range []string{"", ".public_key", ".expires_at"} {
				if line, ok := d.lines[fmt.Sprintf("%s.keys[%d]%s", counted, j, field)]; ok {
					d.lines[key+field] = line
				}
			}
		}
	}
}

func (d *document) fill(m proto.Message) error {
	if err := d.message(d.root, m.ProtoReflect(), ""); err != nil {
		return err
	}
	return nil
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func wrongNode(n *yaml.Node, field, problem, fix string) *FileError {
	return &FileError{Line: n.Line, Field: field, Problem: problem, Fix: fix}
}

func (d *document) message(n *yaml.Node, m protoreflect.Message, path string) *FileError {
	if n.Kind != yaml.MappingNode {
		return wrongNode(n, path, "is "+kindOf(n), "write fields, such as name: x")
	}
	fields := m.Descriptor().Fields()
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := strings.TrimPrefix(path+"."+key.Value, ".")
		fd := fields.ByName(protoreflect.Name(key.Value))
		if fd == nil {
			fd = fields.ByJSONName(key.Value)
		}
		if key.Kind != yaml.ScalarNode || fd == nil {
			return wrongNode(key, at, "is not known", "use "+fieldNames(fields))
		}
		at = strings.TrimPrefix(path+"."+string(fd.Name()), ".")
		if before, twice := d.lines[at]; twice {
			return wrongNode(key, at, fmt.Sprintf("stands in line %d already", before), "say it once")
		}
		d.lines[at] = key.Line
		if err := d.field(value, m, fd, at); err != nil {
			return err
		}
	}
	return nil
}

func fieldNames(fields protoreflect.FieldDescriptors) string {
	names := make([]string, fields.Len())
	for i := range names {
		names[i] = string(fields.Get(i).Name())
	}
	return strings.Join(names, ", ")
}

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	if isNull(n) {
		return "empty"
	}
	return strconv.Quote(n.Value)
}

func (d *document) field(n *yaml.Node, m protoreflect.Message, fd protoreflect.FieldDescriptor, path string) *FileError {
	if isNull(n) {
		return wrongNode(n, path, "is empty", "give it a value, or leave it out")
	}
	if !fd.IsList() {
		v, err := d.value(n, fd, path, func() protoreflect.Value { return m.NewField(fd) })
		if err == nil {
			m.Set(fd, v)
		}
		return err
	}
	if n.Kind != yaml.SequenceNode {
		return wrongNode(n, path, "is "+kindOf(n), "write a list, such as [a, b]")
	}
	list := m.Mutable(fd).List()
	for i, item := range n.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		d.lines[at] = item.Line
		v, err := d.value(item, fd, at, list.NewElement)
		if err != nil {
			return err
		}
		list.Append(v)
	}
	return nil
}

func (d *document) value(n *yaml.Node, fd protoreflect.FieldDescriptor, path string, empty func() protoreflect.Value) (protoreflect.Value, *FileError) {
	if fd.Kind() == protoreflect.MessageKind {
		return d.messageValue(n, fd, path, empty)
	}
	if n.Kind != yaml.ScalarNode {
		return protoreflect.Value{}, wrongNode(n, path, "is "+kindOf(n), "write one value")
	}
	switch fd.Kind() {
	case protoreflect.StringKind:
		if n.Tag != "!!str" {
			return protoreflect.Value{}, wrongNode(n, path, fmt.Sprintf("is %s, which is not text", kindOf(n)), "put it into quotes")
		}
		return protoreflect.ValueOfString(n.Value), nil
	case protoreflect.BoolKind:
		if n.Tag != "!!bool" {
			return protoreflect.Value{}, wrongNode(n, path, "is "+kindOf(n), "write true or false")
		}
		return protoreflect.ValueOfBool(strings.EqualFold(n.Value, "true")), nil
	case protoreflect.EnumKind:
		return enumValue(n, fd.Enum(), path)
	}
	return numberValue(n, fd.Kind(), path)
}

func (d *document) messageValue(n *yaml.Node, fd protoreflect.FieldDescriptor, path string, empty func() protoreflect.Value) (protoreflect.Value, *FileError) {
	v := empty()
	switch v.Message().Interface().(type) {
	case *durationpb.Duration:
		length, err := time.ParseDuration(n.Value)
		if n.Kind != yaml.ScalarNode || err != nil {
			return v, wrongNode(n, path, "is "+kindOf(n), "write a duration, such as 60s or 10m")
		}
		return protoreflect.ValueOfMessage(durationpb.New(length).ProtoReflect()), nil
	case *timestamppb.Timestamp:
		at, err := time.Parse(time.RFC3339, n.Value)
		if n.Kind != yaml.ScalarNode || err != nil {
			return v, wrongNode(n, path, "is "+kindOf(n), "write a time with its zone, such as 2030-01-31T12:00:00Z")
		}
		return protoreflect.ValueOfMessage(timestamppb.New(at).ProtoReflect()), nil
	case *writv1.ApproverKey:
		if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
			return protoreflect.ValueOfMessage((&writv1.ApproverKey{PublicKey: n.Value}).ProtoReflect()), nil
		}
	}
	return v, d.message(n, v.Message(), path)
}

// enumValue takes a value's name with or without what all names of the enumeration begin with.
func enumValue(n *yaml.Node, ed protoreflect.EnumDescriptor, path string) (protoreflect.Value, *FileError) {
	prefix := strings.TrimSuffix(string(ed.Values().Get(0).Name()), "UNSPECIFIED")
	var words []string
	for i := range ed.Values().Len() {
		v := ed.Values().Get(i)
		word := strings.ToLower(strings.TrimPrefix(string(v.Name()), prefix))
		if v.Number() != 0 && (n.Value == string(v.Name()) || n.Value == word) {
			return protoreflect.ValueOfEnum(v.Number()), nil
		}
		words = append(words, word)
	}
	return protoreflect.Value{}, wrongNode(n, path, "is "+kindOf(n), "use "+strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "unspecified" }), ", "))
}

func numberValue(n *yaml.Node, kind protoreflect.Kind, path string) (protoreflect.Value, *FileError) {
	switch kind {
	case protoreflect.Uint32Kind:
		if v, err := strconv.ParseUint(n.Value, 10, 32); err == nil {
			return protoreflect.ValueOfUint32(uint32(v)), nil
		}
		return protoreflect.Value{}, wrongNode(n, path, "is "+kindOf(n), "write a number, 0 or more")
	case protoreflect.Uint64Kind:
		if v, err := strconv.ParseUint(n.Value, 10, 64); err == nil {
			return protoreflect.ValueOfUint64(v), nil
		}
		return protoreflect.Value{}, wrongNode(n, path, "is "+kindOf(n), "write a number, 0 or more")
	case protoreflect.Int32Kind:
		if v, err := strconv.ParseInt(n.Value, 10, 32); err == nil {
			return protoreflect.ValueOfInt32(int32(v)), nil
		}
	}
	return protoreflect.Value{}, wrongNode(n, path, "is "+kindOf(n), "write a whole number")
}

package approval

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	// maxInteger is the largest integer that every reader of JSON takes without loss.
	maxInteger = 1<<53 - 1
	// maxDepth bounds how deep values are nested.
	maxDepth = 64
	// MaxDocument is the largest document, in bytes, that CheckCanonical and ParseDocument take.
	MaxDocument = 1 << 20
)

var errNotCanonical = errors.New("it is not canonical JSON (RFC 8785: sorted keys, no white space, integers)")

// Digest names a document: SHA-256 in lower case hexadecimal, as sha256sum prints it.
func Digest(doc []byte) string {
	sum := sha256.Sum256(doc)
	return hex.EncodeToString(sum[:])
}

// Canonical writes v as canonical JSON (RFC 8785), in the only way there is. It takes what encoding/json takes, and refuses
// what readers could understand differently: fractions and exponents, integers beyond 2^53-1 either way (write them as
// strings), invalid UTF-8, and two members of one name.
func Canonical(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("approval: canonical JSON: %w", err)
	}
	// encoding/json hides both of what this looks for.
	if err := unfaithful(reflect.ValueOf(v), 0); err != nil {
		return nil, fmt.Errorf("approval: canonical JSON: %w", err)
	}
	decoded, err := decode(raw)
	if err != nil {
		return nil, fmt.Errorf("approval: canonical JSON: %w", err)
	}
	return encode(nil, decoded), nil
}

// CheckCanonical says whether doc is exactly what Canonical would have written.
func CheckCanonical(doc []byte) error {
	if len(doc) > MaxDocument {
		return fmt.Errorf("approval: the document has %d bytes, at most %d are taken", len(doc), MaxDocument)
	}
	decoded, err := decode(doc)
	if err != nil {
		return fmt.Errorf("approval: the document: %w", err)
	}
	if !bytes.Equal(encode(nil, decoded), doc) {
		return fmt.Errorf("approval: the document: %w", errNotCanonical)
	}
	return nil
}

// unfaithful finds what json.Marshal would replace or round without a word: invalid UTF-8, and floating point.
func unfaithful(v reflect.Value, depth int) error {
	if depth > 4*maxDepth { // a level of JSON takes up to four of Go
		return errors.New("it is nested too deep")
	}
	if v.IsValid() && v.CanInterface() {
		if raw, ok := v.Interface().(json.RawMessage); ok {
			if !utf8.Valid(raw) {
				return errors.New("it has invalid UTF-8")
			}
			return nil
		}
		if _, ok := v.Interface().(json.Marshaler); ok {
			return nil // what it wrote is looked at later
		}
	}
	switch v.Kind() {
	case reflect.Float32, reflect.Float64:
		return errors.New("it has a floating-point number; write it as a string")
	case reflect.String:
		if !utf8.ValidString(v.String()) {
			return errors.New("it has invalid UTF-8")
		}
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			return unfaithful(v.Elem(), depth+1)
		}
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return nil
		}
		for i := range v.Len() {
			if err := unfaithful(v.Index(i), depth+1); err != nil {
				return err
			}
		}
	case reflect.Map:
		for iter := v.MapRange(); iter.Next(); {
			if err := errors.Join(unfaithful(iter.Key(), depth+1), unfaithful(iter.Value(), depth+1)); err != nil {
				return err
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			if !field.IsExported() && !field.Anonymous || field.Tag.Get("json") == "-" {
				continue
			}
			if err := unfaithful(v.Field(i), depth+1); err != nil {
				return err
			}
		}
	default: // nothing that could be replaced
	}
	return nil
}

// decode reads one JSON value, and nothing after it, into nil, bool, string, json.Number, []any and map[string]any.
func decode(raw []byte) (any, error) {
	if !utf8.Valid(raw) {
		return nil, errors.New("it has invalid UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	v, err := decodeValue(dec, 0)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON")
	}
	return v, nil
}

func decodeValue(dec *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("it is nested deeper than %d levels", maxDepth)
	}
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch t := token.(type) {
	case json.Delim:
		if t == '[' {
			return decodeArray(dec, depth)
		}
		return decodeObject(dec, depth)
	case json.Number:
		return t, checkInteger(string(t))
	}
	return token, nil
}

func decodeArray(dec *json.Decoder, depth int) (any, error) {
	array := []any{}
	for dec.More() {
		element, err := decodeValue(dec, depth+1)
		if err != nil {
			return nil, err
		}
		array = append(array, element)
	}
	_, err := dec.Token()
	return array, err
}

func decodeObject(dec *json.Decoder, depth int) (any, error) {
	object := map[string]any{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, err
		}
		name, ok := token.(string)
		if !ok {
			return nil, errors.New("a member has no name")
		}
		if _, twice := object[name]; twice {
			return nil, fmt.Errorf("it has two members %q", name)
		}
		if object[name], err = decodeValue(dec, depth+1); err != nil {
			return nil, err
		}
	}
	_, err := dec.Token()
	return object, err
}

func checkInteger(n string) error {
	v, err := strconv.ParseInt(n, 10, 64)
	if err != nil || v > maxInteger || v < -maxInteger || n != strconv.FormatInt(v, 10) {
		return fmt.Errorf("the number %.40s is not an integer of at most 2^53-1; write it as a string", n)
	}
	return nil
}

// encode appends what decode has read.
func encode(to []byte, v any) []byte {
	switch v := v.(type) {
	case bool:
		return strconv.AppendBool(to, v)
	case json.Number:
		return append(to, v...)
	case string:
		return encodeString(to, v)
	case []any:
		to = append(to, '[')
		for i, element := range v {
			if i > 0 {
				to = append(to, ',')
			}
			to = encode(to, element)
		}
		return append(to, ']')
	case map[string]any:
		to = append(to, '{')
		for i, name := range slices.SortedFunc(maps.Keys(v), compareUTF16) {
			if i > 0 {
				to = append(to, ',')
			}
			to = append(encodeString(to, name), ':')
			to = encode(to, v[name])
		}
		return append(to, '}')
	}
	return append(to, "null"...)
}

// compareUTF16 orders names as RFC 8785 does, which differs from the order of their bytes beyond U+FFFF.
func compareUTF16(a, b string) int {
	return slices.Compare(utf16.Encode([]rune(a)), utf16.Encode([]rune(b)))
}

// encodeString escapes what RFC 8785 escapes, and nothing else.
func encodeString(to []byte, s string) []byte {
	to = append(to, '"')
	for i := range len(s) {
		switch c := s[i]; c {
		case '"', '\\':
			to = append(to, '\\', c)
		case '\b':
			to = append(to, `\b`...)
		case '\t':
			to = append(to, `\t`...)
		case '\n':
			to = append(to, `\n`...)
		case '\f':
			to = append(to, `\f`...)
		case '\r':
			to = append(to, `\r`...)
		default:
			if c < ' ' {
				to = fmt.Appendf(to, `\u%04x`, c)
			} else {
				to = append(to, c)
			}
		}
	}
	return append(to, '"')
}

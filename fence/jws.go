package fence

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// base64url is strict: no padding, and unused bits must be zero, so that each
// byte string has one spelling.
var base64url = base64.RawURLEncoding.Strict()

// bannedHeaders let a message bring its own key, or change what the signature
// covers. A writ never carries them.
var bannedHeaders = []string{"crit", "b64", "jwk", "jku", "x5c", "x5u", "zip"}

// envelope is a compact JWS taken apart. Until its signature is checked, none of
// it may be believed.
type envelope struct {
	keyID     string
	signed    string // what the signature covers: header "." payload, encoded
	payload   []byte
	signature []byte
}

// openEnvelope refuses everything that is not the one spelling of an EdDSA
// JWS of that type. There is no other parser behind it that could read a message
// differently.
func openEnvelope(compact, typ string) (envelope, error) {
	if len(compact) > MaxWritBytes {
		return envelope{}, invalid(ErrInvalidWrit, "writ", "", "must not be longer than 8 KiB")
	}
	parts := strings.Split(compact, ".")
	if len(parts) != 3 {
		return envelope{}, invalid(ErrInvalidWrit, "writ", "", "must have three parts separated by dots: present it as it was issued")
	}
	var decoded [3][]byte
	for i, name := range []string{"header", "payload", "signature"} {
		// DecodeString passes over line breaks, which nobody signed.
		if strings.ContainsAny(parts[i], "\r\n") {
			return envelope{}, invalid(ErrInvalidWrit, name, "", "must not contain line breaks")
		}
		var err error
		if decoded[i], err = base64url.DecodeString(parts[i]); err != nil {
			return envelope{}, invalid(ErrInvalidWrit, name, "", "must be unpadded base64url: present the writ as it was issued")
		}
	}
	if len(decoded[2]) != ed25519.SignatureSize {
		return envelope{}, invalid(ErrInvalidWrit, "signature", "", "must have 64 bytes: present the whole writ")
	}
	keyID, err := readHeader(decoded[0], typ)
	if err != nil {
		return envelope{}, err
	}
	return envelope{
		keyID:     keyID,
		signed:    compact[:len(parts[0])+1+len(parts[1])],
		payload:   decoded[1],
		signature: decoded[2],
	}, nil
}

func readHeader(header []byte, typ string) (keyID string, err error) {
	found, err := parseObject(ErrInvalidWrit, "header", header)
	if err != nil {
		return "", err
	}
	for _, name := range bannedHeaders {
		if _, ok := found.members[name]; ok {
			return "", invalid(ErrInvalidWrit, name, "", "must not be in the header")
		}
	}
	for _, must := range []struct{ name, value string }{{"alg", "EdDSA"}, {"typ", typ}} {
		value, err := found.text(must.name)
		if err != nil {
			return "", err
		}
		if value != must.value {
			return "", invalid(ErrInvalidWrit, must.name, value, "must be "+must.value)
		}
	}
	return found.text("kid")
}

// object is a JSON object whose members are not interpreted yet.
type object struct {
	kind    error
	members map[string]json.RawMessage
}

// maxMembers bounds the members of an object from outside.
const maxMembers = 64

// parseObject reads exactly one JSON object of valid UTF-8 without a repeated
// name. Names are compared exactly, unlike encoding/json's struct fields.
func parseObject(kind error, field string, data []byte) (object, error) {
	if !utf8.Valid(data) {
		return object{}, invalid(kind, field, "", "must be valid UTF-8")
	}
	rest := bytes.TrimLeft(data, jsonSpace)
	if !json.Valid(data) || rest[0] != '{' {
		return object{}, invalid(kind, field, "", "must be one JSON object")
	}
	members := make(map[string]json.RawMessage, 8)
	// From here on the text is known to be well formed.
	for rest = bytes.TrimLeft(rest[1:], jsonSpace); rest[0] != '}'; {
		var quoted, value []byte
		quoted, rest = cutValue(rest)
		rest = bytes.TrimLeft(rest, jsonSpace+":")
		value, rest = cutValue(rest)
		rest = bytes.TrimLeft(rest, jsonSpace+",")
		name, err := unquote(quoted)
		if err != nil {
			return object{}, invalid(kind, field, "", "must be one JSON object")
		}
		if _, twice := members[name]; twice {
			return object{}, invalid(kind, shorten(name), "", "must not appear twice")
		}
		if len(members) == maxMembers {
			return object{}, invalid(kind, field, "", "has too many members")
		}
		members[name] = value
	}
	return object{kind: kind, members: members}, nil
}

// jsonSpace is what may stand between the parts of a JSON text.
const jsonSpace = " \t\r\n"

// cutValue splits well-formed JSON text after its first value, which starts
// at once and is followed by something.
func cutValue(text []byte) (value, rest []byte) {
	depth, inString := 0, false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case inString && c == '\\':
			i++
			continue
		case c == '"':
			inString = !inString
		case inString:
			continue
		case c == '{' || c == '[':
			depth++
		case depth > 0 && (c == '}' || c == ']'):
			depth--
		case depth == 0 && strings.IndexByte(jsonSpace+",:}]", c) >= 0:
			return text[:i], text[i:] // after a number or a literal
		default:
			continue
		}
		if depth == 0 && !inString {
			return text[:i+1], text[i+1:]
		}
	}
	return text, nil
}

// unquote reads a JSON string.
func unquote(quoted []byte) (string, error) {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1]), nil
	}
	var s string
	err := json.Unmarshal(quoted, &s)
	return s, err
}

// text returns a member that must be there and be a string.
func (o object) text(name string) (string, error) {
	raw, ok := o.members[name]
	if !ok {
		return "", invalid(o.kind, name, "", "is missing")
	}
	if raw[0] == '"' {
		if value, err := unquote(raw); err == nil {
			return value, nil
		}
	}
	return "", invalid(o.kind, name, string(raw), "must be a string")
}

package check

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/writ-io/writ/fence"
)

const (
	pathAdmit = "/v1/admit"
	pathDone  = "/v1/done/"

	// maxBodyBytes is a writ, a name, and room around them.
	maxBodyBytes = 32 << 10
	// maxResourceBytes is that of package fence.
	maxResourceBytes = 512

	defaultWait = 10 * time.Second
	maxWait     = time.Minute
)

// Outcomes and events on the wire.
const (
	outcomeFinished = "finished"
	outcomeBroken   = "broken"
	eventAdmitted   = "admitted"
	eventCut        = "cut"
)

// errRequest means that a request cannot be read.
var errRequest = errors.New("check: invalid request")

func badRequest(member, fix string) error { return fmt.Errorf("%w: %s %s", errRequest, member, fix) }

// ask is a request to be admitted.
type ask struct {
	write fence.Write
	hold  bool
	wait  time.Duration
}

// answer is what a writer is told; also an event of a held ticket.
type answer struct {
	Event  string      `json:"event,omitempty"`
	Ticket string      `json:"ticket,omitempty"`
	Token  fence.Token `json:"token,omitzero"`
	// ValidMS is 0 for a held ticket.
	ValidMS int64 `json:"valid_ms,omitempty"`
}

// parseAsk reads the body of a request to be admitted. It is as strict as what it carries: no unknown member, none twice.
func parseAsk(data []byte) (ask, error) {
	members, err := parseObject(data, "resource", "writ", "token", "hold", "wait_ms")
	if err != nil {
		return ask{}, err
	}
	a := ask{wait: defaultWait}
	if err := read(members, "resource", &a.write.Resource); err != nil {
		return ask{}, err
	}
	if n := len(a.write.Resource); n == 0 || n > maxResourceBytes {
		return ask{}, badRequest("resource", "must have 1 to 512 bytes")
	}
	if err := read(members, "hold", &a.hold); err != nil {
		return ask{}, err
	}
	if err := a.readCredential(members); err != nil {
		return ask{}, err
	}
	if _, given := members["wait_ms"]; given {
		var ms int64
		if err := read(members, "wait_ms", &ms); err != nil {
			return ask{}, err
		}
		if ms < 1 || ms > maxWait.Milliseconds() {
			return ask{}, badRequest("wait_ms", fmt.Sprintf("must be 1 to %d", maxWait.Milliseconds()))
		}
		a.wait = time.Duration(ms) * time.Millisecond
	}
	return a, nil
}

func (a *ask) readCredential(members map[string]json.RawMessage) error {
	_, hasWrit := members["writ"]
	token, hasToken := members["token"]
	switch {
	case hasWrit && hasToken:
		return &fence.InvalidError{Kind: fence.ErrInvalidWrit, Field: "writ", Fix: "excludes token: present one of them"}
	case hasWrit:
		if err := read(members, "writ", &a.write.Writ); err != nil {
			return err
		}
		if a.write.Writ == "" || len(a.write.Writ) > fence.MaxWritBytes {
			return &fence.InvalidError{Kind: fence.ErrInvalidWrit, Field: "writ", Fix: "must be a compact writ of up to 8 KiB"}
		}
		return nil
	case !hasToken:
		return fence.ErrNoCredential
	}
	text := string(token) // an integer, or a string in either form
	if token[0] == '"' {
		if err := read(members, "token", &text); err != nil {
			return err
		}
	}
	var err error
	a.write.Token, err = fence.ParseToken(text)
	return err
}

// parseOutcome reads the body of a request that ends a ticket.
func parseOutcome(data []byte) (fence.Outcome, error) {
	members, err := parseObject(data, "outcome")
	if err != nil {
		return 0, err
	}
	var text string
	if err := read(members, "outcome", &text); err != nil {
		return 0, err
	}
	switch text {
	case outcomeFinished:
		return fence.Finished, nil
	case outcomeBroken:
		return fence.Broken, nil
	}
	return 0, badRequest("outcome", `must be "finished" or "broken"`)
}

func read[T string | bool | int64](members map[string]json.RawMessage, name string, to *T) error {
	raw, ok := members[name]
	if !ok {
		return nil // the zero value, which is refused where it must not be
	}
	if err := json.Unmarshal(raw, to); err != nil || bytes.Equal(raw, []byte("null")) {
		return badRequest(name, fmt.Sprintf("must be of type %T", *to))
	}
	return nil
}

// parseObject reads exactly one JSON object with members of these names alone, each at most once.
func parseObject(data []byte, names ...string) (map[string]json.RawMessage, error) {
	if !utf8.Valid(data) {
		return nil, badRequest("body", "must be valid UTF-8")
	}
	notObject := badRequest("body", "must be one JSON object")
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, notObject
	}
	members := make(map[string]json.RawMessage, len(names))
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, notObject
		}
		name, _ := key.(string) // it is one: the decoder refuses other keys
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, notObject
		}
		if _, twice := members[name]; twice {
			return nil, badRequest("body", fmt.Sprintf("must not have the member %.40q twice", name))
		}
		if !slices.Contains(names, name) {
			return nil, badRequest("body", fmt.Sprintf("has the unknown member %.40q: use %v", name, names))
		}
		members[name] = raw
	}
	if _, err := d.Token(); err != nil {
		return nil, notObject
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, notObject
	}
	return members, nil
}

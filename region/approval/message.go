package approval

import (
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// Message writes a protobuf message as canonical JSON, with the names of the .proto file.
func Message(m proto.Message) (json.RawMessage, error) {
	// What protojson writes varies in white space only, which Canonical takes out.
	written, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("approval: %w", err)
	}
	return Canonical(json.RawMessage(written))
}

// ReadMessage reads what Message has written into m, which is empty. A field that is not known is an error: what was signed
// is done as a whole, or not at all.
func ReadMessage(from json.RawMessage, m proto.Message) error {
	if err := protojson.Unmarshal(from, m); err != nil {
		return fmt.Errorf("approval: %w", err)
	}
	return nil
}

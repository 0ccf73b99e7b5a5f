package approval

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

const (
	// Namespace keeps approvals apart from what else people sign with the same keys.
	Namespace = "writ-approval@v1"
	// Format is what a document's first member says.
	Format = Namespace
)

// The kinds of documents.
const (
	KindPromotion       = "promotion"
	KindGroupChange     = "group-change"
	KindApproversChange = "approvers-change"
	KindTail            = "tail"
	KindSettlement      = "settlement"
	KindAttestation     = "attestation"
)

// Document is what people sign: an operation, all of it, and where and until when it holds.
type Document struct {
	Format      string `json:"format"`
	Cluster     string `json:"cluster"`
	Incarnation string `json:"incarnation"`
	Epoch       uint32 `json:"epoch"`
	ID          string `json:"id"`
	Kind        string `json:"kind"`
	// Group is empty where the operation is about none.
	Group     string `json:"group"`
	Requester string `json:"requester"`
	// By the coordinator's wall clock; UTC.
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	// PolicyVersion is the version of the set of approvers.
	PolicyVersion uint64 `json:"policy_version,string"`
	// Body says what is to be done; an object, whose members depend on the kind.
	Body json.RawMessage `json:"body"`
}

// Encode writes the document as it is signed.
func (d Document) Encode() ([]byte, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	d.Created, d.Expires = d.Created.UTC(), d.Expires.UTC()
	return Canonical(d)
}

// ParseDocument reads a document. It takes only what Encode would have written.
func ParseDocument(doc []byte) (Document, error) {
	if err := CheckCanonical(doc); err != nil {
		return Document{}, err
	}
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.DisallowUnknownFields()
	var d Document
	if err := dec.Decode(&d); err != nil {
		return Document{}, fmt.Errorf("approval: the document: %w", err)
	}
	again, err := d.Encode()
	if err != nil {
		return Document{}, err
	}
	// It also differs when a member is missing, or its name or time is spelled differently.
	if !bytes.Equal(again, doc) {
		return Document{}, errors.New("approval: the document has not exactly the members format, cluster, incarnation, epoch, " +
			"id, kind, group, requester, created, expires, policy_version and body, with times in UTC")
	}
	return d, nil
}

func (d Document) check() error {
	if d.Format != Format {
		return fmt.Errorf("approval: the document's format is %.64q, not %q", d.Format, Format)
	}
	for _, member := range []struct{ name, value string }{
		{"cluster", d.Cluster}, {"incarnation", d.Incarnation}, {"id", d.ID}, {"kind", d.Kind}, {"requester", d.Requester},
	} {
		if member.value == "" {
			return fmt.Errorf("approval: the document has no %s", member.name)
		}
	}
	if !d.Expires.After(d.Created) {
		return errors.New("approval: the document expires before it was created")
	}
	if body := bytes.TrimSpace(d.Body); len(body) == 0 || body[0] != '{' {
		return errors.New("approval: the document's body is not an object")
	}
	return nil
}

package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/writ-io/writ/region/approval"
)

// A bundle is a gzipped tar file that shows, with no server, what stands in an audit log: in this order
//
//	manifest.json      what it is of, and where its records begin and end
//	heads.json         heads of the chain as nodes have signed them
//	jwks.json          the public keys of the nodes
//	context.jsonl      records from before the first one that later ones refer to
//	records.jsonl      the records as they are stored, a line each
//	documents/         what was proposed: ID.json, exactly the bytes that people signed
//	signatures/        ID.NAME.sig, as ssh-keygen writes and verifies them
//	approvers.json     who could approve, from which record on
//	allowed_signers    the same for ssh-keygen -Y verify
//
// What stands behind records.jsonl repeats what the records say, for tools that read files.
const (
	Format = "writ-audit@v1"

	fileManifest  = "manifest.json"
	fileHeads     = "heads.json"
	fileKeys      = "jwks.json"
	fileContext   = "context.jsonl"
	fileRecords   = "records.jsonl"
	fileApprovers = "approvers.json"
	fileSigners   = "allowed_signers"
	dirDocuments  = "documents/"
	dirSignatures = "signatures/"
)

// Bounds of what a bundle may hold; records.jsonl may be of any length.
const (
	maxManifest   = 64 << 10
	maxHeads      = 4 << 20
	maxLine       = 1<<20 + 64<<10 // a record fits into a commit
	maxContext    = 256 << 20
	maxDerived    = 64 << 20
	maxFile       = 1 << 20
	maxFiles      = 200_000
	maxUnchecked  = 1000
	maxForks      = 1000
	maxHeadsCount = 1000
)

// Manifest says what a bundle is of.
type Manifest struct {
	Format      string    `json:"format"`
	Cluster     string    `json:"cluster"`
	Incarnation string    `json:"incarnation"`
	Exported    time.Time `json:"exported"`
	// Start is the record that the first one continues; sequence 0: the bundle has the chain from its beginning.
	Start Position `json:"start"`
	// End is the newest record of the bundle.
	End Position `json:"end"`
	// Pruned is the newest record that the quorum had forgotten.
	Pruned uint64 `json:"pruned,string"`
}

// Position is a head as it is written.
type Position struct {
	Sequence uint64 `json:"sequence,string"`
	Hash     string `json:"hash"`
}

// Position answers a head as it is written.
func (h Head) Position() Position {
	return Position{Sequence: h.Sequence, Hash: hex.EncodeToString(h.Hash)}
}

// head reads a position.
func (p Position) head() (Head, error) {
	if p.Sequence == 0 && p.Hash == "" {
		return Head{}, nil
	}
	hash, err := parseHash(p.Hash)
	if err != nil || p.Sequence == 0 {
		return Head{}, fmt.Errorf("record %d with the hash %.80q is no position", p.Sequence, p.Hash)
	}
	return Head{Sequence: p.Sequence, Hash: hash}, nil
}

// encode writes a part as Export does. A part is taken in that spelling only: JSON has many for the same.
func encode(part any) ([]byte, error) {
	raw, err := json.MarshalIndent(part, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	return append(raw, '\n'), nil
}

// decodePart reads what encode wrote, and nothing else.
func decodePart[T any](data []byte) (part T, err error) {
	if err := decodeStrict(data, &part); err != nil {
		return part, err
	}
	if again, err := encode(part); err != nil || !bytes.Equal(again, data) {
		return part, errors.New("it is not spelled as writ audit export does")
	}
	return part, nil
}

// heads is the content of heads.json.
type heads struct {
	Heads []string `json:"heads"`
}

// derived gathers what stands behind records.jsonl, from the records. It does not judge them.
type derived struct {
	files   map[string]file
	history []setInForce
	signers signerList
	// full says that there is more than a bundle may hold.
	full error
}

// file is one of documents and signatures.
type file struct {
	sum      [sha256.Size]byte
	sequence uint64 // of the record that it is made of
	size     int64
}

// setInForce is one line of approvers.json.
type setInForce struct {
	Sequence uint64          `json:"sequence,string"`
	At       time.Time       `json:"at"`
	Set      json.RawMessage `json:"set"`
}

func newDerived() *derived {
	return &derived{files: map[string]file{}, signers: signerList{byKey: map[string]*allowed{}}}
}

func (d *derived) add(r Record) {
	if name, content := fileOf(r); name != "" {
		if len(d.files) >= maxFiles {
			d.full = errors.New("there are more documents and signatures than a bundle may hold: export fewer records at a time")
			return
		}
		d.files[name] = file{sum: sha256.Sum256(content), sequence: r.Sequence, size: int64(len(content))}
	}
	if r.Action != ActionApproversChange {
		return
	}
	set := json.RawMessage(r.Detail[detailSet])
	if !json.Valid(set) {
		set = json.RawMessage("null")
	}
	var compact bytes.Buffer
	_ = json.Compact(&compact, set) // it is valid
	d.history = append(d.history, setInForce{Sequence: r.Sequence, At: r.At, Set: compact.Bytes()})
	d.signers.change(r)
}

// fileOf is the file that a record makes, if it makes one.
func fileOf(r Record) (name string, content []byte) {
	switch {
	case r.Action == ActionPropose && len(r.Detail[detailDocument]) <= maxFile:
		return dirDocuments + url.PathEscape(r.Target) + ".json", []byte(r.Detail[detailDocument])
	case r.Action == ActionApprove && len(r.Detail[detailSignature]) <= approval.MaxSignature:
		name := dirSignatures + url.PathEscape(r.Target) + "." + url.PathEscape(r.Detail[detailApprover]) + ".sig"
		return name, []byte(r.Detail[detailSignature])
	}
	return "", nil
}

// approvers is the content of approvers.json.
func (d *derived) approvers() ([]byte, error) {
	if d.history == nil {
		d.history = []setInForce{}
	}
	return encode(d.history)
}

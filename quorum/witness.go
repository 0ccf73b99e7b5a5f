package quorum

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
)

// Errors of a witness file.
var (
	// ErrWitnessMissing says that there is no witness file. It wraps fs.ErrNotExist.
	ErrWitnessMissing = fmt.Errorf("quorum: no witness: %w", fs.ErrNotExist)
	// ErrWitnessEdited says that a witness file is not as it was written: edited, cut off or damaged.
	ErrWitnessEdited = errors.New("quorum: witness is not as it was written")
	// ErrWitnessLowered says that an update would lower what a witness remembers, or is of another history.
	ErrWitnessLowered = errors.New("quorum: witness would forget")
)

// witnessVersion is the version of the file format. Another one is refused: a field that this program does not know
// could be a higher floor.
const witnessVersion = 1

// witnessBytes is more than any witness file has.
const witnessBytes = 64 << 10

// Witness is what a node remembers outside the replicated store. A store that is behind a witness is not the one that
// the node last saw: it was restored, copied, or put back.
//
// Invariant: within a file (Epoch, Ceiling), MaxTTL and, for one member of one incarnation, RaftTerm, AppliedIndex and
// Revision never decrease.
type Witness struct {
	Cluster     string
	Node        string
	MemberID    uint64
	Incarnation string
	Epoch       fence.Epoch
	// Ceiling is the highest sequence of Epoch that may have been handed out. It begins again in a new epoch.
	Ceiling uint64
	// RaftTerm and AppliedIndex are lower bounds of what is in the member's log.
	RaftTerm     uint64
	AppliedIndex uint64
	Revision     int64
	// MaxTTL is an upper bound of every TTL ever granted, in whole milliseconds.
	MaxTTL time.Duration
	// Foreign says why the state is foreign, until a new epoch has been committed; empty if it is not.
	Foreign string
}

// witnessBody is the checked content of the file. The order of fields is the canonical one.
type witnessBody struct {
	Version      int         `json:"version"`
	Cluster      string      `json:"cluster"`
	Node         string      `json:"node"`
	MemberID     uint64      `json:"member_id,string"`
	Incarnation  string      `json:"incarnation"`
	Epoch        fence.Epoch `json:"epoch"`
	Ceiling      uint64      `json:"ceiling,string"`
	RaftTerm     uint64      `json:"raft_term,string"`
	AppliedIndex uint64      `json:"applied_index,string"`
	Revision     int64       `json:"revision,string"`
	MaxTTLMillis int64       `json:"max_ttl_ms,string"`
	Foreign      string      `json:"foreign"`
}

type witnessFile struct {
	Witness json.RawMessage `json:"witness"`
	// SHA256 is of the witness as compact JSON. It guards against accidents and curiosity, not against an attacker.
	SHA256 string `json:"sha256"`
}

// Record answers w as the nodes tell it each other.
func (w Witness) Record() *writv1.WitnessRecord {
	return &writv1.WitnessRecord{
		Cluster: w.Cluster, Node: w.Node, MemberId: w.MemberID, Incarnation: w.Incarnation,
		Epoch: uint32(w.Epoch), Ceiling: w.Ceiling, RaftTerm: w.RaftTerm, AppliedIndex: w.AppliedIndex,
		Revision: w.Revision, MaxTtlMs: millisUp(w.MaxTTL), Foreign: w.Foreign,
	}
}

// WitnessFromRecord reads what Record wrote.
func WitnessFromRecord(r *writv1.WitnessRecord) Witness {
	return Witness{
		Cluster: r.Cluster, Node: r.Node, MemberID: r.MemberId, Incarnation: r.Incarnation, Epoch: fence.Epoch(r.Epoch),
		Ceiling: r.Ceiling, RaftTerm: r.RaftTerm, AppliedIndex: r.AppliedIndex, Revision: r.Revision,
		MaxTTL: time.Duration(r.MaxTtlMs) * time.Millisecond, Foreign: r.Foreign,
	}
}

// Advance answers w with all that seen knows beyond it. Both must be of the same cluster, node and member, and of the
// same incarnation unless seen's epoch is higher; otherwise the error is ErrWitnessLowered: see Rebase.
//
// Foreign stays until the epoch rises, and is set by seen.
func (w Witness) Advance(seen Witness) (Witness, error) {
	if err := w.sameNode(seen); err != nil {
		return w, err
	}
	if w.MemberID != 0 && seen.MemberID != w.MemberID {
		return w, fmt.Errorf("%w: of member %x, not %x", ErrWitnessLowered, w.MemberID, seen.MemberID)
	}
	if w.Incarnation != "" && seen.Incarnation != w.Incarnation && seen.Epoch <= w.Epoch {
		return w, fmt.Errorf("%w: incarnation %s became %s without a higher epoch",
			ErrWitnessLowered, w.Incarnation, seen.Incarnation)
	}
	next := seen.withTokens(w)
	next.RaftTerm = max(w.RaftTerm, seen.RaftTerm)
	next.AppliedIndex = max(w.AppliedIndex, seen.AppliedIndex)
	next.Revision = max(w.Revision, seen.Revision)
	if next.Foreign == "" && next.Epoch == w.Epoch {
		next.Foreign = w.Foreign
	}
	return next, w.keptBy(next)
}

// Rebase answers seen with all that w knows about tokens and TTLs, for a node whose state was restored or whose member
// was replaced: the positions in the log begin again, what may have been handed out does not. Seen must say why the
// state is foreign.
func (w Witness) Rebase(seen Witness) (Witness, error) {
	if err := w.sameNode(seen); err != nil {
		return w, err
	}
	if seen.Foreign == "" {
		return w, fmt.Errorf("%w: another history without a reason", ErrWitnessLowered)
	}
	next := seen.withTokens(w)
	return next, w.keptBy(next)
}

func (w Witness) sameNode(seen Witness) error {
	if w.Cluster != seen.Cluster || w.Node != seen.Node {
		return fmt.Errorf("%w: of node %s in cluster %s, not node %s in cluster %s",
			ErrWitnessLowered, w.Node, w.Cluster, seen.Node, seen.Cluster)
	}
	return nil
}

// withTokens answers w with the higher of both token ceilings and TTLs.
func (w Witness) withTokens(other Witness) Witness {
	switch cmp.Compare(other.Epoch, w.Epoch) {
	case 1:
		w.Epoch, w.Incarnation, w.Ceiling = other.Epoch, other.Incarnation, other.Ceiling
	case 0:
		w.Ceiling = max(w.Ceiling, other.Ceiling)
	}
	w.MaxTTL = max(w.MaxTTL, other.MaxTTL)
	return w
}

// keptBy answers an error if next forgets a token or a TTL that w knows of, or, for the same member and incarnation, a
// position in the log.
func (w Witness) keptBy(next Witness) error {
	lower := func(what string, old, new any) error {
		return fmt.Errorf("%w: %s %v would become %v", ErrWitnessLowered, what, old, new)
	}
	switch {
	case next.Epoch < w.Epoch:
		return lower("epoch", w.Epoch, next.Epoch)
	case next.Epoch == w.Epoch && next.Ceiling < w.Ceiling:
		return lower("ceiling", w.Ceiling, next.Ceiling)
	case next.MaxTTL < w.MaxTTL:
		return lower("longest TTL", w.MaxTTL, next.MaxTTL)
	case next.MemberID != w.MemberID || next.Incarnation != w.Incarnation || next.Foreign != "":
		return nil
	case next.RaftTerm < w.RaftTerm:
		return lower("raft term", w.RaftTerm, next.RaftTerm)
	case next.AppliedIndex < w.AppliedIndex:
		return lower("applied index", w.AppliedIndex, next.AppliedIndex)
	case next.Revision < w.Revision:
		return lower("revision", w.Revision, next.Revision)
	}
	return nil
}

// LoadWitness reads a witness file. The error is ErrWitnessMissing if there is none and ErrWitnessEdited if it is not as
// SaveWitness left it; it names the file.
func LoadWitness(path string) (Witness, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Witness{}, fmt.Errorf("%w: %s", ErrWitnessMissing, path)
	}
	if err != nil {
		return Witness{}, fmt.Errorf("witness: %w", err)
	}
	defer func() { _ = file.Close() }()
	raw, err := io.ReadAll(io.LimitReader(file, witnessBytes+1))
	if err != nil {
		return Witness{}, fmt.Errorf("witness: read %s: %w", path, err)
	}
	w, err := parseWitness(raw)
	if err != nil {
		return Witness{}, fmt.Errorf("%w: %s: %w", ErrWitnessEdited, path, err)
	}
	return w, nil
}

func parseWitness(raw []byte) (Witness, error) {
	if len(raw) > witnessBytes {
		return Witness{}, fmt.Errorf("more than %d bytes", witnessBytes)
	}
	var file witnessFile
	if err := decodeWitness(raw, &file); err != nil {
		return Witness{}, err
	}
	var version struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(file.Witness, &version); err != nil {
		return Witness{}, err
	}
	if version.Version != witnessVersion {
		return Witness{}, fmt.Errorf("version %d, this program knows %d", version.Version, witnessVersion)
	}
	var body witnessBody
	if err := decodeWitness(file.Witness, &body); err != nil {
		return Witness{}, err
	}
	canonical, err := json.Marshal(body)
	if err != nil {
		return Witness{}, err
	}
	if sum := witnessChecksum(canonical); sum != file.SHA256 {
		return Witness{}, fmt.Errorf("checksum is %q, content has %q", file.SHA256, sum)
	}
	if body.Revision < 0 || body.MaxTTLMillis < 0 || body.MaxTTLMillis > math.MaxInt64/int64(time.Millisecond) {
		return Witness{}, errors.New("number out of range")
	}
	return Witness{
		Cluster: body.Cluster, Node: body.Node, MemberID: body.MemberID, Incarnation: body.Incarnation,
		Epoch: body.Epoch, Ceiling: body.Ceiling, RaftTerm: body.RaftTerm, AppliedIndex: body.AppliedIndex,
		Revision: body.Revision, MaxTTL: time.Duration(body.MaxTTLMillis) * time.Millisecond, Foreign: body.Foreign,
	}, nil
}

func decodeWitness(raw []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the end")
	}
	return nil
}

func formatWitness(w Witness) ([]byte, error) {
	canonical, err := json.Marshal(witnessBody{
		Version: witnessVersion,
		Cluster: w.Cluster, Node: w.Node, MemberID: w.MemberID, Incarnation: w.Incarnation,
		Epoch: w.Epoch, Ceiling: w.Ceiling, RaftTerm: w.RaftTerm, AppliedIndex: w.AppliedIndex,
		Revision: w.Revision, MaxTTLMillis: millisUp(w.MaxTTL), Foreign: w.Foreign,
	})
	if err != nil {
		return nil, err
	}
	raw, err := json.MarshalIndent(witnessFile{Witness: canonical, SHA256: witnessChecksum(canonical)}, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(raw, '\n'), nil
}

func witnessChecksum(canonical []byte) string {
	sum := sha256.Sum256(canonical)
	return hex.EncodeToString(sum[:])
}

// millisUp rounds up: a bound must stay one.
func millisUp(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}

// SaveWitness replaces a witness file: after a crash it holds either the old content or the new, and the new once
// SaveWitness has answered nil. It refuses to lower what the file remembers, with ErrWitnessLowered, and to replace a
// file that it cannot read. The directory must exist. Only one process may save at a time.
func SaveWitness(path string, w Witness) error {
	old, err := LoadWitness(path)
	switch {
	case errors.Is(err, ErrWitnessMissing):
	case err != nil:
		return err
	default:
		if err := errors.Join(old.sameNode(w), old.keptBy(w)); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	raw, err := formatWitness(w)
	if err != nil {
		return fmt.Errorf("witness: %w", err)
	}
	// What cannot be read back must not replace what can.
	w.MaxTTL = time.Duration(millisUp(w.MaxTTL)) * time.Millisecond
	back, err := parseWitness(raw)
	if err != nil {
		return fmt.Errorf("witness: %w", err)
	}
	if back != w {
		return fmt.Errorf("witness: %+v cannot be written", w)
	}
	if err := replaceWitness(path, raw); err != nil {
		return fmt.Errorf("witness: %w", err)
	}
	return nil
}

// replaceWitness writes a new file beside path, flushes it, renames it over path and flushes the directory.
func replaceWitness(path string, content []byte) (err error) {
	dir := filepath.Dir(path)
	temp, err := os.CreateTemp(dir, filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temp.Name())
		}
	}()
	_, err = temp.Write(content)
	if err = errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return err
	}
	if err = os.Rename(temp.Name(), path); err != nil {
		return err
	}
	parent, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(parent.Sync(), parent.Close())
}

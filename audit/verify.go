package audit

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
)

// BundleError says what is wrong with a bundle, and where. It matches ErrBroken.
type BundleError struct {
	// File is the part of the bundle; Sequence the record, 0: it is about none.
	File     string
	Sequence uint64
	Problem  string
	cause    error
}

func (e *BundleError) Error() string {
	at := e.File
	if e.Sequence > 0 {
		at = fmt.Sprintf("%s, record %d", e.File, e.Sequence)
	}
	return fmt.Sprintf("audit: %s: %s", at, e.Problem)
}

// Unwrap answers ErrBroken and what it came from.
func (e *BundleError) Unwrap() []error { return []error{ErrBroken, e.cause} }

func bad(file string, sequence uint64, problem string, args ...any) *BundleError {
	err := fmt.Errorf(problem, args...)
	return &BundleError{File: file, Sequence: sequence, Problem: err.Error(), cause: err}
}

// Report is what was found in a bundle.
type Report struct {
	Cluster     string    `json:"cluster"`
	Incarnation string    `json:"incarnation"`
	Exported    time.Time `json:"exported"`
	Start       Head      `json:"-"`
	End         Head      `json:"-"`
	Pruned      uint64    `json:"pruned,string"`
	Records     uint64    `json:"records,string"`
	Context     int       `json:"context"`
	// First and Last are the times of the first and the last record.
	First time.Time `json:"first,omitzero"`
	Last  time.Time `json:"last,omitzero"`
	// Covered is the newest record that a signed head vouches for, by a trusted key if some were given.
	Covered uint64       `json:"covered,string"`
	Heads   []HeadReport `json:"heads"`
	// Forks are the rebuilds of the quorum that the records tell of.
	Forks      []Fork `json:"forks,omitempty"`
	Signatures int    `json:"signatures"`
	// FirstApprovers are the oldest set that the bundle has: all that was approved rests on them. LastApprovers are those in
	// force at its end.
	FirstApprovers *Approvers `json:"firstApprovers,omitempty"`
	LastApprovers  *Approvers `json:"lastApprovers,omitempty"`
	// StartApprovers are those in force where the first record begins, as the context says; nil: it says nothing.
	StartApprovers *Approvers  `json:"startApprovers,omitempty"`
	Operations     []Operation `json:"operations,omitempty"`
	// Executed counts operations; the first 10,000 are in Operations.
	Executed int `json:"executed"`
	// Unchecked is what the bundle does not show.
	Unchecked []string `json:"unchecked,omitempty"`
}

// HeadReport is a signed head and what became of it.
type HeadReport struct {
	Node     string    `json:"node"`
	Sequence uint64    `json:"sequence,string"`
	Key      string    `json:"key"`
	At       time.Time `json:"at"`
	// State says where the head stands.
	State HeadState `json:"state"`
	// Trusted: its key is among those that were given as trusted.
	Trusted bool `json:"trusted"`

	head SignedHead
}

// HeadState says what a bundle shows of a signed head.
type HeadState string

// The states.
const (
	HeadOnChain HeadState = "on the chain"
	HeadBefore  HeadState = "before the first record"
	HeadBeyond  HeadState = "beyond the last record"
	// HeadForked: it was signed in another incarnation, of which a rebuild is recorded.
	HeadForked HeadState = "of a history that a rebuild has ended"
)

// Fork is where the history of the quorum was begun anew, from a backup or by force.
type Fork struct {
	Sequence    uint64    `json:"sequence,string"`
	At          time.Time `json:"at"`
	Reason      string    `json:"reason"`
	Incarnation string    `json:"incarnation"`
	Epoch       string    `json:"epoch"`
}

func (r *Report) unchecked(what string) {
	if len(r.Unchecked) < maxUnchecked {
		r.Unchecked = append(r.Unchecked, what)
	}
}

func (r *Report) executed(o Operation) {
	r.Executed++
	if len(r.Operations) < maxReported {
		r.Operations = append(r.Operations, o)
	}
}

// Verifier verifies bundles.
type Verifier struct {
	// Trusted are the nodes' keys, got from elsewhere. Without any, those in the bundle are taken at their word: whoever can
	// forge the whole bundle can forge them as well.
	Trusted fence.KeySet
	// Approvers are those whom the first set of the bundle has to be, got from elsewhere; nil: it is taken at its word.
	Approvers *writv1.ApproverSet
	// Each, if set, is called with every record in order, once it has been checked. What is found wrong behind it makes it no
	// less of a record of this chain.
	Each func(Record)
}

// VerifyBundle verifies with the keys in the bundle. See [Verifier.Verify].
func VerifyBundle(r io.Reader) (Report, error) { return Verifier{}.Verify(r) }

// Verify reads a bundle and checks it: that the chain has no gap and its hashes are right; that signed heads are right and on
// it; that each document has its digest, that each signature over one is right and by somebody who could approve then, and that
// nothing was executed without those that its rule asks for; and that what else the bundle has says the same. It keeps little
// in memory, however long the bundle is. The error, a *BundleError, names the first thing that is wrong; the report says what
// was found before it.
func (v Verifier) Verify(r io.Reader) (Report, error) {
	b := &bundle{verifier: v, derived: newDerived()}
	b.ledger = &ledger{open: map[string]*proposal{}, groups: map[string]*writv1.GroupSpec{}, report: &b.report}
	err := b.read(r)
	if err == nil {
		err = v.vouched(b.report)
	}
	return b.report, err
}

// vouched says whether what was given from elsewhere is what the bundle rests on.
func (v Verifier) vouched(report Report) error {
	if v.Approvers != nil {
		if err := sameApprovers(report.FirstApprovers, v.Approvers); err != nil {
			return err
		}
	}
	if v.Trusted.Len() == 0 {
		return nil
	}
	for _, h := range report.Heads {
		if h.Trusted && h.State == HeadOnChain {
			return nil
		}
	}
	return bad(fileHeads, 0, "no head on the chain is signed with a key that is trusted")
}

// bundle is one that is being verified.
type bundle struct {
	verifier Verifier
	report   Report
	manifest Manifest
	keys     fence.KeySet
	heads    []string
	ledger   *ledger
	derived  *derived
}

// gzipHeader is what Export begins with: no name, no time, nothing beside.
var gzipHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff}

func (b *bundle) read(r io.Reader) error {
	in := bufio.NewReader(r)
	if begin, err := in.Peek(len(gzipHeader)); err != nil || !bytes.Equal(begin, gzipHeader) {
		return bad("bundle", 0, "is no gzipped tar file as writ audit export writes it")
	}
	zipped, err := gzip.NewReader(in)
	if err != nil {
		return bad("bundle", 0, "is no gzip file: %w", err)
	}
	zipped.Multistream(false)
	if err := b.members(tar.NewReader(zipped)); err != nil {
		return err
	}
	// What stands behind the last member is read to the end, so that its checksum counts.
	switch n, err := io.Copy(io.Discard, io.LimitReader(zipped, maxTail)); {
	case err != nil:
		return bad("bundle", 0, "is damaged: %w", err)
	case n == maxTail:
		return bad("bundle", 0, "goes on behind its end")
	}
	if _, err := in.ReadByte(); !errors.Is(err, io.EOF) {
		return bad("bundle", 0, "goes on behind its end")
	}
	return nil
}

// maxTail bounds the padding of a tar file.
const maxTail = 1 << 20

// members reads the parts of a bundle in their order.
func (b *bundle) members(files *tar.Reader) error {
	for _, part := range []struct {
		name string
		read func(io.Reader, int64) error
	}{
		{fileManifest, b.readManifest}, {fileHeads, b.readHeads}, {fileKeys, b.readKeys}, {fileContext, b.readContext}, {fileRecords, b.readRecords},
	} {
		h, err := next(files)
		if err != nil {
			return err
		}
		if h == nil || h.Name != part.name {
			return bad(part.name, 0, "is missing, or not in its place")
		}
		if err := part.read(files, h.Size); err != nil {
			return err
		}
	}
	return b.readDerived(files)
}

// next answers the next member, nil at the end. Anything but plain files is refused.
func next(files *tar.Reader) (*tar.Header, error) {
	h, err := files.Next()
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, bad("bundle", 0, "cannot be read: %w", err)
	}
	if h.Typeflag != tar.TypeReg || h.Size < 0 {
		return nil, bad("bundle", 0, "holds %.80q, which is no plain file", h.Name)
	}
	for key := range h.PAXRecords {
		if key != "path" && key != "size" {
			return nil, bad("bundle", 0, "holds %.80q, which is no plain file", h.Name)
		}
	}
	return h, nil
}

// readDerived holds what stands behind the records against them.
func (b *bundle) readDerived(files *tar.Reader) error {
	if b.derived.full != nil {
		return bad(fileRecords, 0, "%w", b.derived.full)
	}
	approvers, err := b.derived.approvers()
	if err != nil {
		return bad(fileApprovers, 0, "%w", err)
	}
	expected := b.derived.files
	expected[fileApprovers] = file{sum: sha256.Sum256(approvers), size: int64(len(approvers))}
	signers := b.derived.signers.file()
	expected[fileSigners] = file{sum: sha256.Sum256(signers), size: int64(len(signers))}
	for {
		h, err := next(files)
		if err != nil {
			return err
		}
		if h == nil {
			break
		}
		want, ok := expected[h.Name]
		if !ok {
			return bad(shown(h.Name), 0, "stands in no record, or is there twice")
		}
		delete(expected, h.Name)
		sum := sha256.New()
		if n, err := io.Copy(sum, io.LimitReader(files, want.size+1)); err != nil || n != want.size || h.Size != want.size || !bytes.Equal(sum.Sum(nil), want.sum[:]) {
			return bad(shown(h.Name), want.sequence, "is not what the records say")
		}
	}
	for name, want := range expected { // any of them
		return bad(shown(name), want.sequence, "is missing")
	}
	return nil
}

func shown(name string) string { return fmt.Sprintf("%.200q", name) }

//writ:core

package lease

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/writ-io/writ/fence"
)

// The stored form of a Record is a writ.v1.LeaseRecord, which is written and read here field by field: every change of a
// lease is encoded once and decoded by each watcher and each new coordinator, and the generated code takes two to
// three times as long. Tests hold the two to the same bytes and the same meaning.

// The fields of writ.v1.LeaseRecord.
const (
	fieldResource protowire.Number = 1 + iota
	fieldToken
	fieldHeld
	fieldEnding
	fieldPrincipal
	fieldInstance
	fieldRegion
	fieldRequestID
	fieldTTL
	fieldGrantedAt
	fieldMetadata
	fieldEnd
	fieldOutcomes
	fieldHasCheckpoint
	fieldPriority
	fieldCheckpointSequence
	fieldFencing
	fieldProofs
	fieldTenureGroup
)

// The fields of writ.v1.ProofRecord.
const (
	proofGuard protowire.Number = 1 + iota
	proofHow
)

// The fields of writ.v1.RequestOutcome.
const (
	outcomePrincipal protowire.Number = 1 + iota
	outcomeRequestID
	outcomeToken
	outcomeEnd
	outcomeDigest
)

// AppendBinary appends the stored form of the record. The only error is that a text is not UTF-8.
func (r *Record) AppendBinary(b []byte) ([]byte, error) {
	if !r.isText() {
		return nil, fmt.Errorf("lease record of %q: %w", r.Resource, errNotText)
	}
	b = slices.Grow(b, r.Size())
	b = appendText(b, fieldResource, string(r.Resource))
	b = appendNumber(b, fieldToken, uint64(r.Token))
	b = appendNumber(b, fieldHeld, protowire.EncodeBool(r.Held))
	b = appendNumber(b, fieldEnding, protowire.EncodeBool(r.Ending))
	b = appendText(b, fieldPrincipal, string(r.Holder.Principal))
	b = appendText(b, fieldInstance, r.Holder.Instance)
	b = appendText(b, fieldRegion, r.Holder.Region)
	b = appendText(b, fieldRequestID, r.RequestID)
	b = appendNumber(b, fieldTTL, uint64(r.TTL.Milliseconds()))
	if !r.GrantedAt.IsZero() {
		b = appendNumber(b, fieldGrantedAt, uint64(r.GrantedAt.UnixMilli()))
	}
	b = appendText(b, fieldMetadata, r.Metadata)
	b = appendNumber(b, fieldEnd, uint64(r.End))
	for i := range r.Outcomes {
		o := &r.Outcomes[i]
		b = protowire.AppendTag(b, fieldOutcomes, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(o.size(r.Holder.Principal)))
		if o.Principal != r.Holder.Principal {
			b = protowire.AppendTag(b, outcomePrincipal, protowire.BytesType)
			b = protowire.AppendString(b, string(o.Principal))
		}
		b = appendNumber(b, outcomeToken, uint64(o.Token))
		b = appendNumber(b, outcomeEnd, uint64(o.End))
		b = protowire.AppendTag(b, outcomeDigest, protowire.Fixed64Type)
		b = protowire.AppendFixed64(b, uint64(o.Request))
	}
	b = appendNumber(b, fieldHasCheckpoint, protowire.EncodeBool(r.HasCheckpoint))
	b = appendNumber(b, fieldPriority, uint64(r.Priority))
	b = appendNumber(b, fieldCheckpointSequence, r.CheckpointSequence)
	b = appendNumber(b, fieldFencing, uint64(r.Fencing))
	for i := range r.Proofs {
		p := &r.Proofs[i]
		b = protowire.AppendTag(b, fieldProofs, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(p.size()))
		b = appendText(b, proofGuard, p.Guard)
		b = appendNumber(b, proofHow, uint64(p.How))
	}
	return appendText(b, fieldTenureGroup, r.TenureGroup), nil
}

var errNotText = errors.New("a text is not valid UTF-8")

func (r *Record) isText() bool {
	for i := range r.Outcomes {
		if !utf8.ValidString(string(r.Outcomes[i].Principal)) {
			return false
		}
	}
	for i := range r.Proofs {
		if !utf8.ValidString(r.Proofs[i].Guard) {
			return false
		}
	}
	return utf8.ValidString(string(r.Resource)) && utf8.ValidString(string(r.Holder.Principal)) &&
		utf8.ValidString(r.Holder.Instance) && utf8.ValidString(r.Holder.Region) && utf8.ValidString(r.RequestID) &&
		utf8.ValidString(r.TenureGroup)
}

// What is zero is left out.

func appendText[T string | []byte](b []byte, field protowire.Number, v T) []byte {
	if len(v) == 0 {
		return b
	}
	b = protowire.AppendTag(b, field, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(len(v)))
	return append(b, v...)
}

func appendNumber(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	b = protowire.AppendTag(b, field, protowire.VarintType)
	return protowire.AppendVarint(b, v)
}

// Size is the length of the stored form in bytes.
func (r *Record) Size() int {
	n := textSize(string(r.Resource)) + numberSize(uint64(r.Token)) +
		numberSize(protowire.EncodeBool(r.Held)) + numberSize(protowire.EncodeBool(r.Ending)) +
		textSize(string(r.Holder.Principal)) + textSize(r.Holder.Instance) + textSize(r.Holder.Region) +
		textSize(r.RequestID) + numberSize(uint64(r.TTL.Milliseconds())) + textSize(r.Metadata) +
		numberSize(uint64(r.End)) + numberSize(protowire.EncodeBool(r.HasCheckpoint)) + numberSize(uint64(r.Priority))
	if !r.GrantedAt.IsZero() {
		n += numberSize(uint64(r.GrantedAt.UnixMilli()))
	}
	if r.CheckpointSequence != 0 {
		n += 1 + numberSize(r.CheckpointSequence) // its tag takes two bytes, as those of all that follow
	}
	if r.Fencing != 0 {
		n += 1 + numberSize(uint64(r.Fencing))
	}
	for i := range r.Proofs {
		n += 2 + protowire.SizeBytes(r.Proofs[i].size())
	}
	if r.TenureGroup != "" {
		n += 1 + textSize(r.TenureGroup)
	}
	for i := range r.Outcomes {
		n += 1 + protowire.SizeBytes(r.Outcomes[i].size(r.Holder.Principal))
	}
	return n
}

func (o *Outcome) size(holder Principal) int {
	n := numberSize(uint64(o.Token)) + numberSize(uint64(o.End)) + 1 + protowire.SizeFixed64()
	if o.Principal != holder {
		n += 1 + protowire.SizeBytes(len(o.Principal))
	}
	return n
}

func (p *Proof) size() int { return textSize(p.Guard) + numberSize(uint64(p.How)) }

// Tags take one byte: fields 1 to 15, which nearly all are.

func textSize[T string | []byte](v T) int {
	if len(v) == 0 {
		return 0
	}
	return 1 + protowire.SizeBytes(len(v))
}

func numberSize(v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(v)
}

// UnmarshalBinary reads the stored form, and keeps nothing of data. What is malformed or breaks an invariant is an error,
// never a guess; unknown fields are skipped.
func (r *Record) UnmarshalBinary(data []byte) error {
	read := recordReader{data: data}
	if len(data) <= sharedText {
		read.text = string(data)
	}
	var rec Record
	var ttl, grantedAt int64 // milliseconds
	var theHolders uint64    // which outcomes are those of the record's principal, which may come after them
	for read.next() {
		switch read.field {
		case fieldResource:
			rec.Resource = Resource(read.string())
		case fieldToken:
			rec.Token = fence.Token(read.number())
		case fieldHeld:
			rec.Held = protowire.DecodeBool(read.number())
		case fieldEnding:
			rec.Ending = protowire.DecodeBool(read.number())
		case fieldPrincipal:
			rec.Holder.Principal = Principal(read.string())
		case fieldInstance:
			rec.Holder.Instance = read.string()
		case fieldRegion:
			rec.Holder.Region = read.string()
		case fieldRequestID:
			rec.RequestID = read.string()
		case fieldTTL:
			ttl = int64(read.number())
		case fieldGrantedAt:
			grantedAt = int64(read.number())
		case fieldMetadata:
			rec.Metadata = append([]byte(nil), read.bytes()...)
		case fieldEnd:
			rec.End = End(read.number())
		case fieldOutcomes:
			if rec.Outcomes == nil {
				rec.Outcomes = make([]Outcome, 0, read.inRow())
			}
			o, theHolder := read.outcome()
			if theHolder {
				theHolders |= 1 << len(rec.Outcomes) // nothing beyond MaxOutcomes, which is refused
			}
			rec.Outcomes = append(rec.Outcomes, o)
		case fieldHasCheckpoint:
			rec.HasCheckpoint = protowire.DecodeBool(read.number())
		case fieldPriority:
			rec.Priority = int32(read.number())
		case fieldCheckpointSequence:
			rec.CheckpointSequence = read.number()
		case fieldFencing:
			rec.Fencing = fence.Token(read.number())
		case fieldProofs:
			rec.Proofs = append(rec.Proofs, read.proof())
		case fieldTenureGroup:
			rec.TenureGroup = read.string()
		default:
			read.skip()
		}
	}
	switch {
	case read.err != nil:
		return fmt.Errorf("lease record: %w", read.err)
	case ttl < 0 || ttl > MaxTTL.Milliseconds():
		return fmt.Errorf("lease record of %q: TTL %d ms is outside of 0 to %d", rec.Resource, ttl, MaxTTL.Milliseconds())
	}
	for i := range rec.Outcomes {
		if theHolders&(1<<i) != 0 {
			rec.Outcomes[i].Principal = rec.Holder.Principal
		}
	}
	rec.TTL = time.Duration(ttl) * time.Millisecond
	if grantedAt != 0 {
		rec.GrantedAt = time.UnixMilli(grantedAt).UTC()
	}
	*r = rec
	return r.check()
}

// sharedText is up to how many bytes of stored form one copy of them holds all texts of a record. In a longer one most is
// metadata, which a text that somebody keeps would keep too.
const sharedText = 1 << 10

// recordReader reads a message field by field. After an error there is no next one.
type recordReader struct {
	data  []byte // up to the end of the message
	text  string // data, for texts to share; empty: each is a copy
	at    int    // in data
	field protowire.Number
	wire  protowire.Type
	err   error
}

// next goes on to a field, whose value one of the methods below must read then.
func (f *recordReader) next() bool {
	if f.err != nil || f.at == len(f.data) {
		return false
	}
	if tag := f.data[f.at]; 1<<3 <= tag && tag < 1<<7 { // one byte, as that of nearly every known field
		f.field, f.wire = protowire.DecodeTag(uint64(tag))
		f.at++
		return true
	}
	var n int
	f.field, f.wire, n = protowire.ConsumeTag(f.data[f.at:])
	if n >= 0 && !f.field.IsValid() {
		f.err = errNotAField
	}
	f.pass(n)
	return f.err == nil
}

var errNotAField = errors.New("invalid field number")

// pass goes on by n bytes, or notes what n says is wrong.
func (f *recordReader) pass(n int) {
	if n < 0 {
		f.err = protowire.ParseError(n)
		return
	}
	f.at += n
}

// is says whether the field has the wire type that it must have.
func (f *recordReader) is(wire protowire.Type) bool {
	if f.wire != wire {
		f.err = fmt.Errorf("field %d is of wire type %d, not %d", f.field, f.wire, wire)
	}
	return f.wire == wire
}

func (f *recordReader) skip() {
	f.pass(protowire.ConsumeFieldValue(f.field, f.wire, f.data[f.at:]))
}

func (f *recordReader) number() uint64 {
	if !f.is(protowire.VarintType) {
		return 0
	}
	v, n := protowire.ConsumeVarint(f.data[f.at:])
	f.pass(n)
	return v
}

func (f *recordReader) fixed() uint64 {
	if !f.is(protowire.Fixed64Type) {
		return 0
	}
	v, n := protowire.ConsumeFixed64(f.data[f.at:])
	f.pass(n)
	return v
}

// bytes is a part of data.
func (f *recordReader) bytes() []byte {
	if !f.is(protowire.BytesType) {
		return nil
	}
	v, n := protowire.ConsumeBytes(f.data[f.at:])
	f.pass(n)
	return v
}

func (f *recordReader) string() string {
	v := f.bytes()
	switch {
	case !utf8.Valid(v):
		f.err = fmt.Errorf("field %d: %w", f.field, errNotText)
		return ""
	case f.text != "":
		return f.text[f.at-len(v) : f.at]
	default:
		return string(v)
	}
}

// inRow is how many times the present field comes in a row, from here on.
func (f *recordReader) inRow() int {
	ahead := *f
	count := 0
	for ok := true; ok && ahead.field == f.field; ok = ahead.next() {
		count++
		ahead.skip()
	}
	return count
}

// outcome reads an outcome. theHolder: it is one of the record's principal.
func (f *recordReader) outcome() (o Outcome, theHolder bool) {
	var of, digest bool // are present
	var requestID string
	v := f.bytes() // none after an error
	read := recordReader{data: f.data[:f.at], text: f.text, at: f.at - len(v)}
	for read.next() {
		switch read.field {
		case outcomePrincipal:
			o.Principal, of = Principal(read.string()), true
		case outcomeRequestID:
			requestID = read.string()
		case outcomeToken:
			o.Token = fence.Token(read.number())
		case outcomeEnd:
			o.End = End(read.number())
		case outcomeDigest:
			o.Request, digest = RequestDigest(read.fixed()), true
		default:
			read.skip()
		}
	}
	f.err = cmp.Or(f.err, read.err)
	if !digest { // as older versions wrote it
		o.Request = DigestRequest(requestID)
	}
	return o, digest && !of
}

func (f *recordReader) proof() Proof {
	var p Proof
	v := f.bytes() // none after an error
	read := recordReader{data: f.data[:f.at], text: f.text, at: f.at - len(v)}
	for read.next() {
		switch read.field {
		case proofGuard:
			p.Guard = read.string()
		case proofHow:
			p.How = ProofHow(read.number())
		default:
			read.skip()
		}
	}
	f.err = cmp.Or(f.err, read.err)
	return p
}

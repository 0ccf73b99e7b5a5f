package lease_test

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

// asMessage and asRecord say what the stored form means.

func asMessage(r lease.Record) *writv1.LeaseRecord {
	m := &writv1.LeaseRecord{
		Resource: string(r.Resource), Token: uint64(r.Token), Held: r.Held, Ending: r.Ending,
		Principal: string(r.Holder.Principal), Instance: r.Holder.Instance, Region: r.Holder.Region,
		RequestId: r.RequestID, Priority: r.Priority, TtlMs: r.TTL.Milliseconds(),
		Metadata: r.Metadata, End: int32(r.End), HasCheckpoint: r.HasCheckpoint, CheckpointSequence: r.CheckpointSequence,
		Fencing: uint64(r.Fencing), TenureGroup: r.TenureGroup,
	}
	if !r.GrantedAt.IsZero() {
		m.GrantedAtUnixMs = r.GrantedAt.UnixMilli()
	}
	for _, p := range r.Proofs {
		m.Proofs = append(m.Proofs, &writv1.ProofRecord{Guard: p.Guard, How: int32(p.How)})
	}
	for _, o := range r.Outcomes {
		stored := &writv1.RequestOutcome{RequestDigest: proto.Uint64(uint64(o.Request)), Token: uint64(o.Token), End: int32(o.End)}
		if o.Principal != r.Holder.Principal {
			stored.Principal = proto.String(string(o.Principal))
		}
		m.Outcomes = append(m.Outcomes, stored)
	}
	return m
}

func asRecord(m *writv1.LeaseRecord) lease.Record {
	r := lease.Record{
		Resource: lease.Resource(m.Resource), Token: fence.Token(m.Token), Held: m.Held, Ending: m.Ending,
		Holder:    lease.Holder{Principal: lease.Principal(m.Principal), Instance: m.Instance, Region: m.Region},
		RequestID: m.RequestId, Priority: m.Priority, TTL: time.Duration(m.TtlMs) * time.Millisecond,
		Metadata: m.Metadata, End: lease.End(m.End), HasCheckpoint: m.HasCheckpoint, CheckpointSequence: m.CheckpointSequence,
		Fencing: fence.Token(m.Fencing), TenureGroup: m.TenureGroup,
	}
	if m.GrantedAtUnixMs != 0 {
		r.GrantedAt = time.UnixMilli(m.GrantedAtUnixMs).UTC()
	}
	for _, p := range m.Proofs {
		r.Proofs = append(r.Proofs, lease.Proof{Guard: p.Guard, How: lease.ProofHow(p.How)})
	}
	for _, o := range m.Outcomes {
		outcome := lease.Outcome{
			Principal: lease.Principal(o.GetPrincipal()), Request: lease.RequestDigest(o.GetRequestDigest()),
			Token: fence.Token(o.Token), End: lease.End(o.End),
		}
		switch {
		case o.RequestDigest == nil: // of an older version
			outcome.Request = lease.DigestRequest(o.RequestId)
		case o.Principal == nil:
			outcome.Principal = r.Holder.Principal
		}
		r.Outcomes = append(r.Outcomes, outcome)
	}
	return r
}

func TestStoredFormIsTheMessage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawRecord(t)
		r.End, r.Token = lease.End(rapid.Int32().Draw(t, "any end")), fence.Token(rapid.Uint64().Draw(t, "any token"))
		if rapid.Bool().Draw(t, "any TTL") {
			r.TTL = time.Duration(rapid.Int64().Draw(t, "ttl"))
		}
		got, err := r.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(asMessage(r))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) || r.Size() != len(want) {
			t.Fatalf("%+v is stored as\n%x of size %d, want\n%x", r, got, r.Size(), want)
		}
	})
}

// checkMeaning: bytes are read as the generated code reads them, or refused.
func checkMeaning(t interface{ Fatalf(string, ...any) }, stored []byte) {
	var r lease.Record
	var m writv1.LeaseRecord
	refused, malformed := r.UnmarshalBinary(stored), proto.Unmarshal(stored, &m)
	switch {
	case refused == nil && malformed != nil:
		t.Fatalf("%x was read as %+v, and is malformed: %v", stored, r, malformed)
	case refused == nil:
		if want := asRecord(&m); !reflect.DeepEqual(tableTidy(r), tableTidy(want)) {
			t.Fatalf("%x was read as\n%+v, want\n%+v", stored, r, want)
		}
	case malformed == nil && !strings.Contains(refused.Error(), "wire type"):
		// Then what is wrong is what it says, in whatever form.
		m.ProtoReflect().SetUnknown(nil)
		for _, o := range m.Outcomes {
			o.ProtoReflect().SetUnknown(nil)
		}
		for _, p := range m.Proofs {
			p.ProtoReflect().SetUnknown(nil)
		}
		if again, err := proto.Marshal(&m); err != nil || new(lease.Record).UnmarshalBinary(again) == nil {
			t.Fatalf("%x was refused (%v), and the same as %x is accepted (%v)", stored, refused, again, err)
		}
	}
}

func TestStoredFormIsReadAsTheMessage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var stored []byte
		add := func(m *writv1.LeaseRecord) {
			b, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			stored = append(stored, b...)
		}
		add(asMessage(drawRecord(t)))
		// What comes later wins, or is skipped, or is wrong.
		for range rapid.IntRange(0, 3).Draw(t, "more") {
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0:
				r := drawRecord(t)
				if len(r.Outcomes) > 2 {
					r.Outcomes = r.Outcomes[:2]
				}
				add(asMessage(r))
			case 1:
				stored = protowire.AppendTag(stored, protowire.Number(rapid.Int32Range(1, 1<<29+10).Draw(t, "field")), protowire.VarintType)
				stored = protowire.AppendVarint(stored, rapid.Uint64().Draw(t, "number"))
			case 2:
				stored = protowire.AppendTag(stored, protowire.Number(rapid.Int32Range(1, 30).Draw(t, "field")), protowire.BytesType)
				stored = protowire.AppendBytes(stored, rapid.SliceOfN(rapid.Byte(), 0, 6).Draw(t, "bytes"))
			case 3: // as older versions wrote it, or with a part left out
				o := &writv1.RequestOutcome{RequestId: rapid.StringMatching(`[A-F]{0,2}`).Draw(t, "id")}
				if rapid.Bool().Draw(t, "by somebody") {
					o.Principal = proto.String(rapid.StringMatching(`[a-c]?`).Draw(t, "principal"))
				}
				add(&writv1.LeaseRecord{Outcomes: []*writv1.RequestOutcome{o}})
			case 4:
				field := protowire.Number(rapid.Int32Range(1, 30).Draw(t, "field"))
				stored = protowire.AppendTag(stored, field, protowire.StartGroupType)
				stored = protowire.AppendTag(stored, field, protowire.EndGroupType)
			}
		}
		checkMeaning(t, stored)
		if rapid.Bool().Draw(t, "broken") {
			stored[rapid.IntRange(0, len(stored)-1).Draw(t, "where")] = rapid.Byte().Draw(t, "byte")
			checkMeaning(t, stored[:rapid.IntRange(1, len(stored)).Draw(t, "cut")])
		}
	})
}

// Older versions stored the principal and the id of every request that had ended.
func TestOutcomesOfOlderVersionsAreRead(t *testing.T) {
	stored, err := proto.Marshal(&writv1.LeaseRecord{Resource: "jobs", Token: 1<<48 | 7, Principal: "p", Outcomes: []*writv1.RequestOutcome{
		{Principal: proto.String("p"), RequestId: "A", Token: 1<<48 | 6, End: int32(lease.EndExpired)}, {RequestId: "B", End: int32(lease.EndCancelled)},
	}})
	if err != nil {
		t.Fatal(err)
	}
	var r lease.Record
	if err := r.UnmarshalBinary(stored); err != nil {
		t.Fatal(err)
	}
	want := []lease.Outcome{
		{Principal: "p", Request: lease.DigestRequest("A"), Token: 1<<48 | 6, End: lease.EndExpired},
		{Principal: "", Request: lease.DigestRequest("B"), End: lease.EndCancelled},
	}
	if !slices.Equal(r.Outcomes, want) {
		t.Errorf("got  %+v\nwant %+v", r.Outcomes, want)
	}
}

// The digest is stored: it must not change.
func TestRequestDigestStays(t *testing.T) {
	if got := lease.DigestRequest("abc"); got != 0xba7816bf8f01cfea {
		t.Errorf("got %#x", uint64(got))
	}
}

func TestFieldsOfAnotherTypeAreRefused(t *testing.T) {
	for field := protowire.Number(1); field <= 15; field++ {
		stored := mustAppend(t, lease.Record{Resource: "jobs"})
		stored = protowire.AppendTag(stored, field, protowire.Fixed32Type)
		stored = protowire.AppendFixed32(stored, 7)
		if err := new(lease.Record).UnmarshalBinary(stored); err == nil || !strings.Contains(err.Error(), "wire type") {
			t.Errorf("field %d: %v", field, err)
		}
	}
	for field := protowire.Number(1); field <= 5; field++ {
		stored := mustAppend(t, lease.Record{Resource: "jobs"})
		stored = protowire.AppendTag(stored, 13, protowire.BytesType)
		stored = protowire.AppendBytes(stored, protowire.AppendFixed32(protowire.AppendTag(nil, field, protowire.Fixed32Type), 7))
		if err := new(lease.Record).UnmarshalBinary(stored); err == nil || !strings.Contains(err.Error(), "wire type") {
			t.Errorf("field %d of an outcome: %v", field, err)
		}
	}
}

// Field numbers go from 1 to 1<<29-1: what has another one is no message, whatever follows.
func TestFieldsWithoutANumberAreRefused(t *testing.T) {
	for _, number := range []uint64{0, 1 << 29, 1<<31 - 1, 1 << 31} {
		for wire := range uint64(8) {
			stored := protowire.AppendVarint(mustAppend(t, lease.Record{Resource: "jobs"}), number<<3|wire)
			if err := new(lease.Record).UnmarshalBinary(append(stored, 1, 1, 1, 1, 1, 1, 1, 1)); err == nil {
				t.Errorf("wire type %d: field %d is skipped", wire, number)
			}
		}
	}
}

func TestTextsOfOtherEncodingsAreRefused(t *testing.T) {
	for name, make := range map[string]func(text string) lease.Record{
		"resource": func(text string) lease.Record { return lease.Record{Resource: lease.Resource(text)} },
		"principal": func(text string) lease.Record {
			return lease.Record{Holder: lease.Holder{Principal: lease.Principal(text)}}
		},
		"instance": func(text string) lease.Record { return lease.Record{Holder: lease.Holder{Instance: text}} },
		"region":   func(text string) lease.Record { return lease.Record{Holder: lease.Holder{Region: text}} },
		"request":  func(text string) lease.Record { return lease.Record{RequestID: text} },
		"ended of": func(text string) lease.Record {
			return lease.Record{Outcomes: []lease.Outcome{{Principal: lease.Principal(text)}}}
		},
	} {
		r := make("\xff")
		if _, err := r.AppendBinary(nil); err == nil || !strings.Contains(err.Error(), "not valid UTF-8") {
			t.Errorf("%s was written: %v", name, err)
		}
		stored := bytes.ReplaceAll(mustAppend(t, make("?")), []byte("?"), []byte("\xff"))
		if err := r.UnmarshalBinary(stored); err == nil || !strings.Contains(err.Error(), "not valid UTF-8") {
			t.Errorf("%s was read: %v", name, err)
		}
	}
}

// A record keeps nothing of what it was read from, however long that is.
func TestRecordsKeepTheirOwn(t *testing.T) {
	for _, metadata := range []int{10, lease.MaxMetadataBytes} {
		want := lease.Record{
			Resource: "jobs/nightly", Token: 1<<48 | 7, Held: true, Holder: lease.Holder{Principal: "p", Instance: "i", Region: "r"}, RequestID: "A",
			TTL: time.Minute, GrantedAt: time.UnixMilli(1).UTC(), Metadata: bytes.Repeat([]byte("m"), metadata),
			Outcomes: []lease.Outcome{{Principal: "q", Request: lease.DigestRequest("B"), Token: 1<<48 | 6, End: lease.EndExpired}},
		}
		stored := mustAppend(t, want)
		var got lease.Record
		if err := got.UnmarshalBinary(stored); err != nil {
			t.Fatal(err)
		}
		clear(stored)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
}

func mustAppend(t testing.TB, r lease.Record) []byte {
	stored, err := r.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return stored
}

func benchmarkRecord() lease.Record {
	r := lease.Record{
		Resource: "billing/nightly", Token: 1<<48 | 1<<20, Held: true, RequestID: "01JZ8K4QXJ5T9M3N7P2R6S8V0W", TTL: 15 * time.Second,
		Holder:    lease.Holder{Principal: "spiffe://example.org/billing", Instance: "billing-7d4b9c/1", Region: "eu"},
		GrantedAt: time.UnixMilli(1_767_225_600_000).UTC(), HasCheckpoint: true,
	}
	for i := range lease.MaxOutcomes {
		r.Outcomes = append(r.Outcomes, lease.Outcome{Principal: r.Holder.Principal, Request: lease.DigestRequest(r.RequestID), Token: r.Token - fence.Token(i), End: lease.EndReleased})
	}
	return r
}

func BenchmarkRecordAppend(b *testing.B) {
	r := benchmarkRecord()
	b.ReportAllocs()
	for b.Loop() {
		mustAppend(b, r)
	}
}

func BenchmarkRecordRead(b *testing.B) {
	stored := mustAppend(b, benchmarkRecord())
	var r lease.Record
	b.ReportAllocs()
	for b.Loop() {
		if err := r.UnmarshalBinary(stored); err != nil {
			b.Fatal(err)
		}
	}
}

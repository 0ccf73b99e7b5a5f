package lease_test

import (
	"bytes"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

func drawRecord(t *rapid.T) lease.Record {
	text := rapid.StringN(0, 20, 60)
	r := lease.Record{
		Resource: lease.Resource(rapid.StringMatching(`[a-zäß]{1,9}(/[a-z0-9 ]{1,9}x){0,3}`).Draw(t, "resource")),
		Held:     rapid.Bool().Draw(t, "held"),
		Holder: lease.Holder{
			Principal: lease.Principal(text.Draw(t, "principal")), Instance: text.Draw(t, "instance"), Region: text.Draw(t, "region"),
		},
		RequestID: text.Draw(t, "request"), Priority: rapid.Int32().Draw(t, "priority"),
		TTL:      time.Duration(rapid.Int64Range(lease.MinTTL.Milliseconds(), lease.MaxTTL.Milliseconds()).Draw(t, "ttl")) * time.Millisecond,
		Metadata: rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "metadata"),
		End:      lease.End(rapid.IntRange(0, int(lease.EndForced)).Draw(t, "end")), HasCheckpoint: rapid.Bool().Draw(t, "checkpoint"),
		CheckpointSequence: rapid.SampledFrom([]uint64{0, 1, 127, 128, math.MaxUint64}).Draw(t, "checkpoint sequence"),
	}
	if r.Held || rapid.Bool().Draw(t, "granted before") {
		r.Token = drawRecordToken(t)
		r.GrantedAt = time.UnixMilli(rapid.Int64Range(1, 1<<42).Draw(t, "granted")).UTC()
	}
	if rapid.Bool().Draw(t, "tenure") {
		r.TenureGroup, r.TTL = "g"+text.Draw(t, "group"), 0
	}
	r.Ending = r.Held && r.TenureGroup == "" && rapid.Bool().Draw(t, "ending")
	if !r.Held && r.Token < 1<<62 && rapid.Bool().Draw(t, "fencing") {
		r.Fencing = r.Token | 1<<62 | 1
	}
	for range rapid.IntRange(0, 3).Draw(t, "proofs") {
		r.Proofs = append(r.Proofs, lease.Proof{Guard: text.Draw(t, "guard"), How: lease.ProofHow(rapid.IntRange(1, int(lease.Unproven)).Draw(t, "how"))})
	}
	for range rapid.IntRange(0, lease.MaxOutcomes).Draw(t, "outcomes") {
		o := lease.Outcome{Principal: r.Holder.Principal, Request: lease.RequestDigest(rapid.Uint64().Draw(t, "request")), End: lease.EndExpired}
		if rapid.Bool().Draw(t, "of another") {
			o.Principal = lease.Principal(text.Draw(t, "p"))
		}
		if rapid.Bool().Draw(t, "was granted") {
			o.Token = drawRecordToken(t)
		}
		r.Outcomes = append(r.Outcomes, o)
	}
	return r
}

func drawRecordToken(t *rapid.T) fence.Token {
	return tableToken(fence.Epoch(rapid.Uint16Range(1, uint16(fence.MaxEpoch)).Draw(t, "epoch")), rapid.Uint64Range(1, fence.MaxSequence).Draw(t, "sequence"))
}

func TestRecordsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := drawRecord(t)
		before := []byte("before")
		stored, err := r.AppendBinary(before)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := r.Size(), len(stored)-len(before); got != want {
			t.Fatalf("the stored form of %+v takes %d bytes, not %d", r, want, got)
		}
		var back lease.Record
		if err := back.UnmarshalBinary(bytes.TrimPrefix(stored, before)); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(tableTidy(back), tableTidy(r)) {
			t.Fatalf("got  %+v\nwant %+v", back, r)
		}
	})
}

// What breaks an invariant is an error: a coordinator that guessed would decide on it.
func TestBrokenRecordsAreRefused(t *testing.T) {
	sound := func() *writv1.LeaseRecord {
		return &writv1.LeaseRecord{Resource: "jobs", Token: 1<<48 | 7, Held: true, TtlMs: 10_000}
	}
	for name, c := range map[string]struct {
		breakIt func(*writv1.LeaseRecord)
		says    string
	}{
		"no name":                 {func(r *writv1.LeaseRecord) { r.Resource = "" }, "is empty"},
		"a name out of bounds":    {func(r *writv1.LeaseRecord) { r.Resource = "a//b" }, "empty segment"},
		"held without a token":    {func(r *writv1.LeaseRecord) { r.Token = 0 }, "invalid token 0"},
		"a token without epoch":   {func(r *writv1.LeaseRecord) { r.Token = 7 }, "invalid token 7"},
		"a token beyond 63 bits":  {func(r *writv1.LeaseRecord) { r.Token = 1<<63 | 7 }, "invalid token"},
		"a bad token of before":   {func(r *writv1.LeaseRecord) { r.Held, r.Token = false, 7 }, "invalid token 7"},
		"a bad token of a past":   {func(r *writv1.LeaseRecord) { r.Outcomes = []*writv1.RequestOutcome{{Token: 7}} }, "invalid token 7"},
		"held for no time":        {func(r *writv1.LeaseRecord) { r.TtlMs = 0 }, "held for 0s"},
		"held for ever":           {func(r *writv1.LeaseRecord) { r.TtlMs = 24*3_600_000 + 1 }, "outside of 0 to 86400000"},
		"a negative TTL":          {func(r *writv1.LeaseRecord) { r.TtlMs = -1 }, "TTL -1 ms"},
		"a TTL that wraps around": {func(r *writv1.LeaseRecord) { r.TtlMs = math.MaxInt64/1_000_000 + 300 }, "outside of 0"},
		"a tenure with an end":    {func(r *writv1.LeaseRecord) { r.TenureGroup = "pay" }, `group "pay" has an end`},
		"a tenure that ends":      {func(r *writv1.LeaseRecord) { r.TenureGroup, r.TtlMs, r.Ending = "pay", 0, true }, `group "pay" has an end`},
		"ending, but free":        {func(r *writv1.LeaseRecord) { r.Held, r.Ending = false, true }, "not held"},
		"nine outcomes":           {func(r *writv1.LeaseRecord) { r.Outcomes = make([]*writv1.RequestOutcome, 9) }, "9 outcomes"},
	} {
		t.Run(name, func(t *testing.T) {
			m := sound()
			c.breakIt(m)
			for i := range m.Outcomes {
				if m.Outcomes[i] == nil {
					m.Outcomes[i] = &writv1.RequestOutcome{}
				}
			}
			stored, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			var r lease.Record
			if err := r.UnmarshalBinary(stored); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v does not say %q", err, c.says)
			}
		})
	}
}

// FuzzRecord: no bytes make the decoder panic, and what it accepts means what the message does, also when it is written
// again.
func FuzzRecord(f *testing.F) {
	for _, r := range []lease.Record{
		{Resource: "jobs"},
		{Resource: "jobs", Token: 1<<48 | 1, Held: true, TTL: time.Second, GrantedAt: time.UnixMilli(1), Holder: lease.Holder{Principal: "p"}},
		{Resource: "a/b", Token: 1<<48 | 1, End: lease.EndForced, Outcomes: []lease.Outcome{{Principal: "p", Request: lease.DigestRequest("A"), End: lease.EndCancelled}}},
	} {
		stored, err := r.AppendBinary(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(stored)
	}
	f.Fuzz(func(t *testing.T, stored []byte) {
		checkMeaning(t, stored)
		var r, again lease.Record
		if r.UnmarshalBinary(stored) != nil {
			return
		}
		first, err := r.AppendBinary(nil)
		if err != nil {
			t.Fatalf("%+v was read and cannot be written: %v", r, err)
		}
		if err := again.UnmarshalBinary(first); err != nil {
			t.Fatalf("%+v was written and cannot be read: %v", r, err)
		}
		if !reflect.DeepEqual(tableTidy(again), tableTidy(r)) {
			t.Fatalf("read  %+v\nagain %+v", r, again)
		}
		if second, err := again.AppendBinary(nil); err != nil || !bytes.Equal(first, second) {
			t.Fatalf("written as %x and %x (%v)", first, second, err)
		}
	})
}

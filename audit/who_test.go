package audit_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/writ-io/writ/audit"
)

// told is a record, so many seconds after noon.
type told struct {
	second int
	action string
	detail string // "name=value", separated by spaces
	target string // empty: the resource
}

func recordsOf(all []told) []audit.Record {
	var records []audit.Record
	for i, r := range all {
		detail := map[string]string{}
		for pair := range strings.FieldsSeq(r.detail) {
			name, value, _ := strings.Cut(pair, "=")
			detail[name] = strings.ReplaceAll(value, "+", " ")
		}
		target := r.target
		if target == "" {
			target = "db"
		}
		records = append(records, audit.Record{
			Sequence: uint64(i + 1), At: noon.Add(time.Duration(r.second) * time.Second), Action: r.action, Target: target, Detail: detail,
		})
	}
	return records
}

const (
	token1 = "281474976710657" // 1.1
	token2 = "281474976710658"
	token3 = "281474976710659"
)

func TestWhoCouldWrite(t *testing.T) {
	leases := []told{
		{10, "grant", "token=" + token1 + " holder=ann region=eu proofs=g1=acked", ""},
		{12, "grant", "token=" + token1 + " holder=eve region=eu", "other"},
		{20, "end", "token=" + token1 + " how=expired", ""},
		{30, "grant", "token=" + token2 + " holder=bob region=us proofs=g1=lapsed+g2=attested", ""},
	}
	tenures := []told{
		{10, "tenure.grant", "token=" + token1 + " region=eu", ""},
		{15, "operation.approve", "approver=bob", "p-1.1"},
		{16, "operation.approve", "approver=ann", "p-1.1"},
		{17, "operation.approve", "approver=cy", "p-1.1"},
		{18, "operation.withdraw", "approver=cy", "p-1.1"},
		{19, "operation.approve", "approver=eve", "p-1.2"},
		{20, "tenure.fence", "token=" + token2 + " old_token=" + token1, ""},
		{30, "tenure.grant", "token=" + token2 + " region=us promotion=p-1.1", ""},
		{40, "tenure.end", "token=" + token2 + " how=dropped", ""},
	}
	back := []told{ // the second coordinator's clock is 8 s behind
		{10, "grant", "token=" + token1 + " holder=ann", ""},
		{20, "end", "token=" + token1 + " how=released", ""},
		{12, "grant", "token=" + token2 + " holder=bob", ""},
	}
	rebuilt := []told{
		{10, "tenure.grant", "token=" + token1 + " region=eu", ""},
		{30, "quorum.foreign-state", "", "test"},
		{31, "quorum.raise-epoch", "from=1 to=2", "test"},
	}
	open := []told{
		{1, "guard.rule", "isolation=ISOLATION_CLOSE", ""},
		{2, "guard.rule", "isolation=ISOLATION_OPEN", "d"},
		{10, "grant", "token=" + token1 + " holder=ann proofs=g1=unproven", ""},
	}
	for _, c := range []struct {
		name    string
		log     []told
		at      int
		pruned  uint64
		want    string // holder or region, and what approved it
		caveats []string
		records []uint64
	}{
		{"before anything", leases, 5, 0, "", nil, nil},
		{"at the grant", leases, 10, 0, "ann/eu", nil, []uint64{1, 3}},
		{"during", leases, 19, 0, "ann/eu", nil, []uint64{1, 3}},
		{"at the end", leases, 20, 0, "", []string{"token 1.1 had ended (expired)"}, []uint64{1, 3}},
		{"between", leases, 25, 0, "", []string{"a guard that had not been raised yet may have admitted it still"}, []uint64{1, 3}},
		{"to this day", leases, 99, 0, "bob/us", []string{"the word of people"}, []uint64{4}},
		{"tenure", tenures, 12, 0, "eu", nil, []uint64{1, 7}},
		{"while fencing", tenures, 25, 0, "", []string{"token 1.1 had ended (fenced)"}, []uint64{1, 7}},
		{"approved", tenures, 35, 0, "us p-1.1 ann+bob", nil, []uint64{8, 9}},
		{"dropped", tenures, 45, 0, "", []string{"dropped"}, []uint64{8, 9}},
		{"clocks: in doubt", back, 15, 0, "ann bob", []string{"the clocks of two coordinators differ"}, []uint64{1, 2, 3}},
		{"clocks: certain", back, 11, 0, "ann", nil, []uint64{1, 2}},
		{"clocks: after it", back, 21, 0, "bob", nil, []uint64{3}},
		{"before the backup", rebuilt, 5, 0, "", nil, nil},
		{"lost by the restore", rebuilt, 20, 0, "eu", []string{"the quorum was rebuilt (record 3)"}, []uint64{1, 3}},
		{"after the restore", rebuilt, 50, 0, "", []string{"token 1.1 had ended (the quorum was rebuilt)"}, []uint64{1, 3}},
		{"open isolation", open, 11, 0, "ann", []string{"had not been proved"}, []uint64{3}},
		{"open isolation of the longest rule", open[1:], 11, 0, "ann", []string{"go on comparing tokens", "had not been proved"}, []uint64{2}},
		{"pruned", leases, 5, 7, "", []string{"records up to 7 have been pruned"}, nil},
		{"nothing known", tenures[1:2], 50, 0, "", []string{"no grant of this resource"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := audit.Who("db", noon.Add(time.Duration(c.at)*time.Second), c.pruned, slices.Values(recordsOf(c.log)))
			var who []string
			for _, w := range got.Writable {
				text := w.Holder
				if w.Region != "" {
					text = strings.TrimPrefix(w.Holder+"/"+w.Region, "/")
				}
				if w.Promotion != "" {
					text += " " + w.Promotion + " " + strings.Join(w.ApprovedBy, "+")
				}
				who = append(who, text)
			}
			if strings.Join(who, " ") != c.want {
				t.Errorf("%q could write, want %q (%v)", who, c.want, got)
			}
			for _, caveat := range c.caveats {
				if !strings.Contains(got.Caveat(), caveat) {
					t.Errorf("the caveat is %q, want %q", got.Caveat(), caveat)
				}
			}
			if c.caveats == nil && got.Caveat() != "" {
				t.Errorf("the caveat is %q, want none", got.Caveat())
			}
			if !slices.Equal(got.Records, c.records) {
				t.Errorf("it rests on %v, want %v", got.Records, c.records)
			}
		})
	}
}

// With one clock that never goes back, Who answers what a plain walk over the grants does; and at no instant two.
func TestWhoAgreesWithAPlainWalk(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type span struct {
			token       int
			from, until int // until 0: to this day
		}
		var (
			log   []told
			spans []span
			now   int
		)
		for token := 1; token <= rapid.IntRange(1, 8).Draw(t, "grants"); token++ {
			name := fmt.Sprint(1<<48 + token)
			now += rapid.IntRange(1, 5).Draw(t, "free")
			tenure := rapid.Bool().Draw(t, "tenure")
			grant, end := "grant", "end"
			detail := "token=" + name
			if tenure {
				grant, end = "tenure.grant", rapid.SampledFrom([]string{"tenure.end", "tenure.fence"}).Draw(t, "end")
				if end == "tenure.fence" {
					detail = "old_token=" + name
				}
			}
			log = append(log, told{now, grant, "token=" + name + " holder=x", ""})
			s := span{token: token, from: now}
			if noise := rapid.SampledFrom([]string{"", "operation.approve", "quorum.recovered", "agent.first-seen"}).Draw(t, "noise"); noise != "" {
				log = append(log, told{now, noise, "", "p-1.1"})
			}
			now += rapid.IntRange(1, 5).Draw(t, "held")
			if !rapid.Bool().Draw(t, "end is told") {
				spans = append(spans, s) // the next grant ends it
				continue
			}
			log = append(log, told{now, end, detail, ""})
			s.until = now
			spans = append(spans, s)
		}
		at := rapid.IntRange(0, now+3).Draw(t, "at")
		want := 0
		for i, s := range spans {
			until := s.until
			if until == 0 && i+1 < len(spans) {
				until = spans[i+1].from
			}
			if s.from <= at && (until == 0 || at < until) {
				want = s.token
			}
		}
		got := audit.Who("db", noon.Add(time.Duration(at)*time.Second), 0, slices.Values(recordsOf(log)))
		have := 0
		if len(got.Writable) > 0 {
			have = int(got.Writable[0].Token.Sequence())
		}
		if len(got.Writable) > 1 || have != want {
			t.Fatalf("at %d: %+v, want token %d", at, got.Writable, want)
		}
	})
}

// What is carried over a cut says as much as the records before it, of what is in force there.
func TestCarryKeepsWhatLaterRecordsReferTo(t *testing.T) {
	s := promotion(t)
	for cut := range s.records {
		carry := &audit.Carry{}
		for _, stored := range s.records[:cut] {
			r, err := audit.Parse(stored)
			if err != nil {
				t.Fatal(err)
			}
			carry.Add(r, stored)
		}
		var all []audit.Record
		for _, stored := range append(carry.Records(), s.records[cut:]...) {
			r, err := audit.Parse(stored)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, r)
		}
		got := audit.Who("orders-db", s.at.Add(time.Hour), 0, slices.Values(all))
		if len(got.Writable) != 1 || got.Writable[0].Region != "us" {
			t.Errorf("cut behind %d: %+v", cut, got)
		}
	}
}

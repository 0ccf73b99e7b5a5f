package check

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/writ-io/writ/fence"
)

func FuzzParseAsk(f *testing.F) {
	for _, seed := range []string{
		`{"resource":"orders","writ":"a.b.c"}`, `{"resource":"orders","token":1125899906842631,"hold":true,"wait_ms":5}`,
		`{"resource":"orders","token":"4.7","token":"4.8"}`, `{"resource":"orders","Token":"4.7"}`, `{"resource":"\ud800","token":"4.7"}`,
		`{"resource":"a","token":null}`, `{}`, `[]`, `{"resource":"a"}{}`, "{\"resource\":\"\xff\"}", `{"a":{"a":[{"a":{}}]}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := parseAsk(data)
		if err != nil {
			return
		}
		if n := len(a.write.Resource); n < 1 || n > maxResourceBytes || a.wait < 1 || a.wait > maxWait {
			t.Fatalf("%q gives %+v", data, a)
		}
		if (a.write.Writ == "") == a.write.Token.IsZero() || len(a.write.Writ) > fence.MaxWritBytes {
			t.Fatalf("%q gives %+v, which presents nothing or two things", data, a)
		}
		// Another parser reads the same.
		var other struct {
			Resource string `json:"resource"`
			Writ     string `json:"writ"`
			Hold     bool   `json:"hold"`
		}
		d := json.NewDecoder(bytes.NewReader(data))
		if err := d.Decode(&other); err != nil || other.Resource != a.write.Resource || other.Writ != a.write.Writ || other.Hold != a.hold {
			t.Fatalf("%q gives %+v here and %+v, %v elsewhere", data, a, other, err)
		}
	})
}

func FuzzParseOutcome(f *testing.F) {
	for _, seed := range []string{`{"outcome":"finished"}`, `{"outcome":"broken"}`, `{"outcome":"broken","outcome":"finished"}`, `{}`, `"finished"`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if outcome, err := parseOutcome(data); (err == nil) != (outcome == fence.Finished || outcome == fence.Broken) {
			t.Fatalf("%q gives %v, %v", data, outcome, err)
		}
	})
}

type finishedOnly struct{ ended []fence.Outcome }

func (*finishedOnly) Token() fence.Token     { return 1 }
func (*finishedOnly) Cut() <-chan struct{}   { return nil }
func (a *finishedOnly) Done(o fence.Outcome) { a.ended = append(a.ended, o) }

// A ticket is worth nothing to another user.
func TestTicketBelongsToItsUser(t *testing.T) {
	ts := newTickets(1)
	if err := ts.reserve(1000); err != nil {
		t.Fatal(err)
	}
	if err := ts.reserve(1001); err != nil {
		t.Errorf("the limit of one user holds for another: %v", err)
	}
	a := &finishedOnly{}
	tk, err := ts.put(1000, a, 0)
	if err != nil {
		t.Fatal(err)
	}
	if ts.end(tk.id, 1001, fence.Finished) || len(a.ended) != 0 {
		t.Error("another user has ended it")
	}
	ts.close()
	if len(a.ended) != 1 || a.ended[0] != fence.Broken {
		t.Errorf("told %v", a.ended)
	}
	late := &finishedOnly{}
	if _, err := ts.put(1001, late, 0); err == nil || len(late.ended) != 1 || late.ended[0] != fence.Finished {
		t.Errorf("a write that is admitted during close: %v, told %v; nobody has learned of it", err, late.ended)
	}
}

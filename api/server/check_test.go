package server

import (
	"errors"
	"strings"
	"testing"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// drawText draws strings around the limits, and of characters that need more than a byte.
func drawText(t *rapid.T, label string, limit int) string {
	unit := rapid.SampledFrom([]string{"a", "ü", "\x01", "/"}).Draw(t, label+" unit")
	n := rapid.SampledFrom([]int{0, 1, 2, limit/2 - 1, limit / 2, limit - 1, limit, limit + 1}).Draw(t, label+" length")
	return strings.Repeat(unit, max(0, n))
}

func drawDuration(t *rapid.T, label string) *durationpb.Duration {
	if rapid.Bool().Draw(t, label+" is set") {
		return nil
	}
	return &durationpb.Duration{
		Seconds: rapid.SampledFrom([]int64{0, 1, -1, 1 << 40, -1 << 62, 1<<63 - 1}).Draw(t, label+" seconds"),
		Nanos:   rapid.SampledFrom([]int32{0, 1, -1, 999_999_999, 1 << 30}).Draw(t, label+" nanos"),
	}
}

func drawRequest(t *rapid.T) proto.Message {
	resource, instance := drawText(t, "resource", 512), drawText(t, "instance", 128)
	token := rapid.SampledFrom([]uint64{0, 1, 1 << 48, 1 << 63}).Draw(t, "token")
	switch rapid.IntRange(0, 5).Draw(t, "kind") {
	case 0:
		return &writv1.AcquireRequest{
			Resource: resource, Instance: instance, Ttl: drawDuration(t, "ttl"), Wait: drawDuration(t, "wait"),
			RequestId: drawText(t, "request id", 64), Region: drawText(t, "region", 64),
			Priority: rapid.SampledFrom([]int32{0, 1000, 1001, -1000, -1001}).Draw(t, "priority"),
			Metadata: []byte(drawText(t, "metadata", 4096)),
		}
	case 1:
		return &writv1.ReleaseRequest{Resource: resource, Token: token, Instance: instance}
	case 2:
		return &writv1.CheckpointRequest{Resource: resource, Token: token, Instance: instance, Data: make([]byte, rapid.SampledFrom([]int{0, 65536, 65537}).Draw(t, "data"))}
	case 3:
		return &writv1.GetRequest{Resource: resource}
	case 4:
		return &writv1.IssueWritRequest{Resource: resource, Token: token, Instance: instance}
	default:
		return &writv1.CancelAcquireRequest{Resource: resource, RequestId: drawText(t, "request id", 64), Instance: instance}
	}
}

// refused is what stands before the quorum: the checker, and the conversions of the handlers.
func refused(c *checker, m proto.Message) error {
	if err := c.check(m); err != nil {
		return err
	}
	var err error
	switch m := m.(type) {
	case *writv1.AcquireRequest:
		_, err = lease.ParseResource(m.GetResource())
	case *writv1.GetRequest:
		_, err = lease.ParseResource(m.GetResource())
	case *writv1.ReleaseRequest:
		_, err = lease.RefFromProto(m.GetResource(), m.GetToken())
	case *writv1.CheckpointRequest:
		_, err = lease.RefFromProto(m.GetResource(), m.GetToken())
	}
	return err
}

// What the rules in the .proto files refuse, the hand-written ones refuse too, always with a field and a remedy.
func TestHandWrittenRulesAreAsStrict(t *testing.T) {
	c, err := newChecker()
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		m := drawRequest(t)
		err := refused(c, m)
		var invalid *protovalidate.ValidationError
		if errors.As(c.validator.Validate(m), &invalid) && err == nil {
			t.Fatalf("%v is accepted although %v", m, invalid)
		}
		var own *lease.Error
		if err != nil && (!errors.As(err, &own) || own.Reason != lease.ReasonInvalid || own.Field == "" || own.Fix == "") {
			t.Fatalf("%v is refused with %v, which lacks field or remedy", m, err)
		}
	})
}

func TestAbsurdDurations(t *testing.T) {
	q := newFake("a")
	n := start(t, newAuthority(t), q, nil)
	c := n.dial(app)
	for _, d := range []*durationpb.Duration{nil, {Seconds: 1 << 62}, {Seconds: -1 << 62}, {Nanos: -5, Seconds: 5}, {Nanos: 2_000_000_000}} {
		_, err := c.leases.Acquire(testContext(t), &writv1.AcquireRequest{Resource: "a/b", Ttl: d})
		wantInvalid(t, err, "ttl")
	}
	for _, d := range []*durationpb.Duration{{Seconds: -1}, {Nanos: -1}, {Seconds: 1 << 62}} {
		req := acquireRequest("a/b")
		req.Wait = d
		_, err := c.leases.Acquire(testContext(t), req)
		wantInvalid(t, err, "wait")
	}
	// 10,000 years, the most that the type allows, is as long as anything may take.
	if got := clampWait(durationpb.New(1<<63 - 1)); got != lease.MaxTTL {
		t.Errorf("longest wait %v, want %v", got, lease.MaxTTL)
	}
	if got := clampWait(&durationpb.Duration{Seconds: 315_576_000_000}); got != lease.MaxTTL {
		t.Errorf("wait of 10,000 years is %v, want %v", got, lease.MaxTTL)
	}
	if got := waitOf(&writv1.GetRequest{}); got != 0 {
		t.Errorf("wait of a read is %v", got)
	}
}

// A request without a deadline gets one.
func TestEveryCallHasADeadline(t *testing.T) {
	q := newFake("a")
	left := lastDeadline(q)
	n := start(t, newAuthority(t), q, nil)
	req := acquireRequest("a/b")
	req.Wait = durationpb.New(time.Minute)
	if _, err := n.dial(app).leases.Acquire(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if got := <-left; got < 80*time.Second || got > 90*time.Second {
		t.Errorf("the request has %v, want 30 s and its wait of a minute", got)
	}
}

func FuzzREST(f *testing.F) {
	f.Add([]byte(`{"ttl":"10s","wait":"1s"}`))
	f.Add([]byte(`{"ttl":"10s","colour":1}`))
	f.Add([]byte(`{"ttl":`))
	f.Add([]byte(`{"token":"x"}`))
	f.Add([]byte(``))
	c, err := newChecker()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		m := &writv1.AcquireRequest{}
		if err := (strictJSON{}).Unmarshal(body, m); err != nil {
			e := explain(err.Error())
			if e.Reason != lease.ReasonInvalid || e.Field == "" || e.Fix == "" {
				t.Fatalf("%q: %v", err, e)
			}
			if got := lease.FromError(e.GRPCStatus().Err()); lease.ReasonOf(got) != lease.ReasonInvalid {
				t.Fatalf("%v does not survive the wire", e)
			}
			return
		}
		if _, err := protojson.Marshal(m); err != nil {
			t.Fatal(err)
		}
		_ = refused(c, m)
	})
}

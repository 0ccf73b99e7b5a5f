package lease_test

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

const tokenA, tokenB fence.Token = 1<<48 | 7, 1<<48 | 8

func drawHolder(t *rapid.T) lease.Holder {
	word := rapid.StringMatching(`[a-z]{0,5}`)
	return lease.Holder{Principal: lease.Principal(word.Draw(t, "principal")), Instance: word.Draw(t, "instance"), Region: word.Draw(t, "region")}
}

func drawWall(t *rapid.T) time.Time {
	if rapid.Bool().Draw(t, "no time") {
		return time.Time{}
	}
	return time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "s"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).UTC()
}

func drawDuration(t *rapid.T, least int64) time.Duration {
	return time.Duration(rapid.Int64Range(least, int64(24*time.Hour)).Draw(t, "duration"))
}

func TestGrantsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sent := &lease.Grant{
			Resource:   lease.Resource(rapid.StringMatching(`[a-z]{1,9}(/[a-z]{1,9}){0,3}`).Draw(t, "resource")),
			Token:      max(tokenA, drawToken(t)),
			Holder:     drawHolder(t),
			TTL:        drawDuration(t, 1),
			GrantedAt:  drawWall(t),
			Checkpoint: rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "checkpoint"),
			Replayed:   rapid.Bool().Draw(t, "replayed"),
		}
		message := lease.GrantToProto(sent)
		got, err := lease.GrantFromProto(message)
		if err != nil || !reflect.DeepEqual(got, sent) {
			t.Fatalf("sent %+v\n got %+v, %v", sent, got, err)
		}
		if message.GetTokenText() != sent.Token.String() {
			t.Fatalf("token_text %q", message.GetTokenText())
		}
	})
}

func TestUnusableGrantsAreRefused(t *testing.T) {
	good := func() *writv1.Grant {
		return lease.GrantToProto(&lease.Grant{Resource: "a", Token: tokenA, TTL: time.Second})
	}
	for name, spoil := range map[string]func(*writv1.Grant){
		"no resource":   func(g *writv1.Grant) { g.Resource = "" },
		"no token":      func(g *writv1.Grant) { g.Token = 0 },
		"epoch 0":       func(g *writv1.Grant) { g.Token = 7 },
		"64 bit token":  func(g *writv1.Grant) { g.Token = 1<<63 | 1<<48 | 7 },
		"no ttl":        func(g *writv1.Grant) { g.Ttl = nil },
		"zero ttl":      func(g *writv1.Grant) { g.Ttl = durationpb.New(0) },
		"negative ttl":  func(g *writv1.Grant) { g.Ttl = durationpb.New(-1) },
		"damaged ttl":   func(g *writv1.Grant) { g.Ttl = &durationpb.Duration{Seconds: 1, Nanos: -1} },
		"different ttl": nil,
	} {
		g := good()
		if spoil != nil {
			spoil(g)
		}
		if _, err := lease.GrantFromProto(g); (err == nil) != (spoil == nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := lease.GrantFromProto(nil); lease.ReasonOf(err) != lease.ReasonInternal {
		t.Errorf("nil: %v", err)
	}
}

func TestInfoRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sent := lease.Info{
			Resource:  lease.Resource(rapid.StringMatching(`[a-z]{1,9}`).Draw(t, "resource")),
			State:     rapid.SampledFrom([]lease.State{0, lease.Free, lease.Held, lease.Ending}).Draw(t, "state"),
			Token:     drawToken(t),
			Holder:    drawHolder(t),
			TTL:       drawDuration(t, 0),
			GrantedAt: drawWall(t),
			End: rapid.SampledFrom([]lease.End{
				lease.NotEnded, lease.EndReleased, lease.EndExpired, lease.EndCancelled, lease.EndForced,
			}).Draw(t, "end"),
			Metadata:  rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "metadata"),
			Remaining: drawDuration(t, 0),
			Waiters:   rapid.IntRange(0, 1<<31-1).Draw(t, "waiters"),
			Revision:  rapid.Int64().Draw(t, "revision"),

			Checkpoint: rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "checkpoint"),
		}
		if got := lease.InfoFromProto(lease.InfoToProto(&sent)); !reflect.DeepEqual(got, sent) {
			t.Fatalf("sent %+v\n got %+v", sent, got)
		}
	})
	if got := lease.InfoFromProto(nil); !reflect.DeepEqual(got, lease.Info{}) {
		t.Errorf("nil became %+v", got)
	}
}

func TestOutcomesRoundTrip(t *testing.T) {
	w := lease.Waiting{Position: 3, HeldBy: lease.Holder{Principal: "p"}, HeldToken: tokenA, Keep: time.Second}
	message := lease.OutcomeToProto(lease.AcquireOutcome{Waiting: &w})
	if got := lease.WaitingFromProto(message.GetWaiting()); *got != w || message.GetGrant() != nil {
		t.Errorf("waiting: %+v", got)
	}
	g := lease.Grant{Resource: "a", Token: tokenA, TTL: time.Second}
	message = lease.OutcomeToProto(lease.AcquireOutcome{Grant: &g})
	if got, err := lease.GrantFromProto(message.GetGrant()); err != nil || got.Token != tokenA || message.GetWaiting() != nil {
		t.Errorf("grant: %+v, %v", got, err)
	}
	outcome := lease.RenewOutcome{
		Failures:  []lease.RenewFailure{{Index: 1, Err: &lease.Error{Reason: lease.ReasonExpired, Message: "m"}}},
		Contended: []int{0, 2},
	}
	got, err := lease.RenewOutcomeFromProto(lease.RenewOutcomeToProto(outcome), 3)
	if err != nil || !reflect.DeepEqual(got, outcome) {
		t.Errorf("renewal: %+v, %v", got, err)
	}
}

func TestRenewalsOfAnotherRequestAreRefused(t *testing.T) {
	for _, r := range []*writv1.RenewResponse{
		{Failures: []*writv1.RenewFailure{{Index: 3}}},
		{Failures: []*writv1.RenewFailure{{Index: -1}}},
		{Contended: []int32{3}},
		{Contended: []int32{-1}},
	} {
		if _, err := lease.RenewOutcomeFromProto(r, 3); lease.ReasonOf(err) != lease.ReasonInternal {
			t.Errorf("%v: %v", r, err)
		}
	}
}

func TestRefsRoundTrip(t *testing.T) {
	sent := []lease.Ref{{Resource: "a", Token: tokenA}, {Resource: "b/c", Token: tokenB}}
	got, indices, unusable, err := lease.RefsFromProto(lease.RefsToProto(sent))
	if err != nil || !reflect.DeepEqual(got, sent) || indices != nil || unusable != nil {
		t.Errorf("got %v, %v, %v, %v", got, indices, unusable, err)
	}
	if m := lease.RefToProto(sent[1]); m.GetResource() != "b/c" || m.GetToken() != uint64(tokenB) {
		t.Errorf("got %v", m)
	}
}

func TestOneUnusableRefDoesNotSpoilTheOthers(t *testing.T) {
	messages := lease.RefsToProto([]lease.Ref{{Resource: "a", Token: tokenA}, {Resource: "/", Token: tokenA}, {Resource: "b", Token: 7}, {Resource: "c", Token: tokenB}})
	refs, indices, unusable, err := lease.RefsFromProto(messages)
	want := []lease.Ref{{Resource: "a", Token: tokenA}, {Resource: "c", Token: tokenB}}
	if err != nil || !reflect.DeepEqual(refs, want) || !reflect.DeepEqual(indices, []int{0, 3}) {
		t.Errorf("got %v, %v, %v", refs, indices, err)
	}
	if len(unusable) != 2 || unusable[0].Index != 1 || unusable[0].Err.Field != "resource" || unusable[1].Index != 2 || unusable[1].Err.Field != "token" {
		t.Errorf("unusable %+v", unusable)
	}
}

func TestRenewalsHaveALimit(t *testing.T) {
	_, _, _, err := lease.RefsFromProto(make([]*writv1.LeaseRef, lease.MaxRenewals+1))
	if !errors.Is(err, lease.ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

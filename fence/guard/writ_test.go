package guard_test

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/writ-io/writ/fence"
)

func newSigner(t testing.TB) *fence.Signer {
	t.Helper()
	s, err := fence.GenerateSigner()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sign(t testing.TB, s *fence.Signer, resource string, token fence.Token, change ...func(*fence.Writ)) string {
	t.Helper()
	w := fence.Writ{Issuer: issuer, Resource: resource, Holder: "me", Token: token, IssuedAt: time.Unix(1e9, 0)}
	for _, f := range change {
		f(&w)
	}
	compact, err := s.Sign(w)
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

func TestWritsThatAreRefused(t *testing.T) {
	simulate(t, func(r *rig) {
		s, stranger := newSigner(t), newSigner(t)
		r.quorum.publish(s.Public())
		r.ready()
		good := sign(t, s, "orders", tok(50))
		parts := strings.Split(good, ".")
		header := func(json string) string { return base64.RawURLEncoding.EncodeToString([]byte(json)) }
		for name, c := range map[string]struct {
			writ string
			want error
		}{
			"another key":      {sign(t, stranger, "orders", tok(50)), fence.ErrUnknownKey},
			"another issuer":   {sign(t, s, "orders", tok(50), func(w *fence.Writ) { w.Issuer = "other" }), fence.ErrInvalidWrit},
			"another resource": {sign(t, s, "billing/eu", tok(50)), fence.ErrInvalidWrit},
			"no signature":     {parts[0] + "." + parts[1] + ".", fence.ErrInvalidWrit},
			"truncated":        {good[:len(good)-7], fence.ErrInvalidWrit},
			"two parts":        {parts[0] + "." + parts[1], fence.ErrInvalidWrit},
			"alg none":         {header(`{"alg":"none","typ":"writ+jwt"}`) + "." + parts[1] + ".", fence.ErrInvalidWrit},
			"alg none, signed": {header(`{"alg":"none","typ":"writ+jwt","kid":"`+s.KeyID()+`"}`) + "." + parts[1] + "." + parts[2], fence.ErrInvalidWrit},
			"another payload":  {parts[0] + "." + strings.Split(sign(t, s, "orders", tok(99)), ".")[1] + "." + parts[2], fence.ErrInvalidWrit},
			"oversized":        {good + strings.Repeat("A", 9000), fence.ErrInvalidWrit},
			"nonsense":         {"\x00\xff", fence.ErrInvalidWrit},
			"spaces":           {good + " ", fence.ErrInvalidWrit},
		} {
			for range 2 {
				_, err := r.guard.Admit(r.Context(), fence.Write{Resource: "orders", Writ: c.writ})
				if !errors.Is(err, c.want) {
					t.Errorf("%s: %v, want %v", name, err, c.want)
				}
			}
		}
		if s := r.guard.Status(); s.Admitted != 0 || s.Floors != 0 {
			t.Errorf("a bad writ left a trace: %+v", s)
		}
		for range 3 {
			a, err := r.guard.Admit(r.Context(), fence.Write{Resource: "orders", Writ: good})
			if err != nil {
				t.Fatal(err)
			}
			a.Done(fence.Finished)
		}
		// One that was seen before is still for its own resource only, and still stale when it is.
		r.refuse(fence.Write{Resource: "billing/eu", Writ: good}, fence.ErrInvalidWrit)
		r.admit("orders", tok(51)).Done(fence.Finished)
		r.refuse(fence.Write{Resource: "orders", Writ: good}, fence.ErrStale)
	})
}

// A key that is withdrawn verifies nothing any more, not even what it verified before; a new one does at once.
func TestKeyRotation(t *testing.T) {
	simulate(t, func(r *rig) {
		old, next := newSigner(t), newSigner(t)
		r.quorum.publish(old.Public())
		r.ready()
		admit := func(s *fence.Signer, want error) {
			t.Helper()
			a, err := r.guard.Admit(r.Context(), fence.Write{Resource: "orders", Writ: sign(t, s, "orders", tok(5))})
			if !errors.Is(err, want) {
				t.Fatalf("%v, want %v", err, want)
			}
			if a != nil {
				a.Done(fence.Finished)
			}
		}
		admit(old, nil)
		admit(next, fence.ErrUnknownKey)
		r.quorum.publish(old.Public(), next.Public())
		synctest.Wait()
		admit(old, nil)
		admit(next, nil)
		r.quorum.publish(next.Public())
		synctest.Wait()
		admit(old, fence.ErrUnknownKey)
		admit(next, nil)
		// What cannot be read changes nothing.
		r.quorum.do(func() { r.quorum.jwks = `{"keys":` })
		r.network.stop(r.guard.Status().Endpoint)
		r.pass(10 * time.Second)
		admit(next, nil)
	})
}

// Keys and issuer are kept, so that a guard knows forged writs from others before it has heard from the quorum again; and it
// admits neither.
func TestKeysSurviveARestart(t *testing.T) {
	simulate(t, func(r *rig) {
		s, stranger := newSigner(t), newSigner(t)
		good := sign(t, s, "orders", tok(5))
		r.start()
		r.refuse(fence.Write{Resource: "orders", Writ: good}, fence.ErrUnavailable, fence.NotSeeded)
		r.quorum.publish(s.Public())
		r.startNodes()
		r.pass(slack + 10*time.Second)
		r.close()
		r.network.stopAll()
		r.start()
		r.refuse(fence.Write{Resource: "orders", Writ: good}, fence.ErrUnavailable, fence.NotSeeded)
		r.refuse(fence.Write{Resource: "orders", Writ: sign(t, stranger, "orders", tok(5))}, fence.ErrUnknownKey)
		wrong := sign(t, s, "orders", tok(5), func(w *fence.Writ) { w.Issuer = "other" })
		r.refuse(fence.Write{Resource: "orders", Writ: wrong}, fence.ErrInvalidWrit)
		if k := r.guard.Status().Keys; k != 1 {
			t.Errorf("%d keys", k)
		}
		// The quorum was rebuilt under another name.
		r.quorum.do(func() { r.quorum.issuer = "other" })
		r.startNodes()
		r.pass(10 * time.Second)
		r.refuse(fence.Write{Resource: "orders", Writ: good}, fence.ErrInvalidWrit)
		a, err := r.guard.Admit(r.Context(), fence.Write{Resource: "orders", Writ: wrong})
		if err != nil {
			t.Fatal(err)
		}
		a.Done(fence.Finished)
	})
}

// Only what the quorum signed or said makes the guard a witness; anybody can make up a bare token.
func TestWitness(t *testing.T) {
	simulate(t, func(r *rig) {
		s := newSigner(t)
		r.quorum.publish(s.Public())
		r.ready()
		r.admit("orders", tok(5000)).Done(fence.Finished)
		a, err := r.guard.Admit(r.Context(), fence.Write{Resource: "billing/eu", Writ: sign(t, s, "billing/eu", tok(70))})
		if err != nil {
			t.Fatal(err)
		}
		a.Done(fence.Finished)
		r.pass(5 * time.Second)
		r.close()
		r.start()
		if w := r.quorum.enrols[1].GetWitnessed(); w != uint64(tok(70)) {
			t.Errorf("a witness of %s, want %s", fence.Token(w), tok(70))
		}
	})
}

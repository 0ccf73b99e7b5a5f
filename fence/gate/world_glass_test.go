package gate_test

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/gate"
	"github.com/writ-io/writ/lease/clock"
)

// worldGlass is what is known of certificates, apart from the gate.
type worldGlass struct {
	made  uint64
	asked map[uint64]bool
	alone clock.Instant // until then there may be a quorum, as far as the guard can know
	taken map[string][]worldCertificate
}

type worldCertificate struct {
	token   fence.Token
	expires time.Time
}

// defaultLease is the gate's, before the quorum has told another one.
const defaultLease = 30 * time.Second

var worldMidnight = time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)

func (w *world) wall() time.Time { return worldMidnight.Add(w.now.Sub(origin)) }

// certified tells whether a certificate that the guard took allows a write.
func (w *world) certified(resource string, token fence.Token) bool {
	return slices.ContainsFunc(w.glass.taken[resource], func(c worldCertificate) bool {
		return c.token == token && w.wall().Before(c.expires)
	})
}

// meet: the guard has heard a live quorum, and no certificate counts any more.
func (w *world) meet() {
	w.glass.alone = w.now
	w.glass.taken = map[string][]worldCertificate{}
}

// recall: what the process before had no time to close durably is in force again, as if it had not met the quorum. Floors
// that were acknowledged meanwhile are durable, and still refuse it.
func (w *world) recall() {
	for _, o := range w.disk.Openings {
		if o.Closed == "" {
			w.glass.taken[o.Resource] = append(w.glass.taken[o.Resource], worldCertificate{o.Token, o.Expires})
		}
	}
}

// contradict: a guard that remembers tokens that this history has not issued makes the quorum begin another epoch above.
func (w *world) contradict(e *writv1.GuardEnrol) {
	q := &w.quorum
	if fence.Token(e.GetWitnessed()) <= tok(q.issued) {
		return
	}
	q.epoch = uint32(fence.Token(e.GetWitnessed()).Epoch()) + 1
	q.issued = uint64(q.epoch-1) << 48
	q.store = "" // so that the seed has a base above
	q.holds, q.unproved = map[string]fence.Token{}, map[string]fence.Token{}
}

// breakGlass tries a certificate, which may be none that the guard should take.
func (w *world) breakGlass(resource string) {
	if w.gate == nil {
		return
	}
	g := &w.glass
	g.made++
	floor := w.gate.Floor(resource)
	c := gate.Certificate{
		ID: fmt.Sprintf("c%d", g.made), Cluster: "q", Incarnation: "i", Epoch: w.gate.Quorum().Epoch, Guards: []string{"g"},
		Created: w.wall(), Expires: w.wall().Add(w.duration("valid for", 90*time.Second) + time.Second),
	}
	grant := gate.CertificateGrant{Resource: resource, Region: "eu", Token: floor, After: floor}
	wrong := rapid.SampledFrom([]string{"", "", "", "", "", "guard", "cluster", "incarnation", "epoch", "expired", "older", "elsewhere"}).Draw(w.t, "wrong")
	if c.Advance = rapid.IntRange(0, 3).Draw(w.t, "advance") == 0; c.Advance {
		grant.Token = max(fence.Token(c.Epoch+1)<<48+1<<47, floor) + 1
	}
	switch wrong {
	case "guard":
		c.Guards = []string{"f", "h"}
	case "cluster":
		c.Cluster = "p"
	case "incarnation":
		c.Incarnation = "j"
	case "epoch":
		c.Epoch++
	case "expired":
		c.Expires = w.wall()
	case "older":
		grant.Token = floor - 1
	case "elsewhere":
		grant.Resource = "elsewhere"
	}
	c.Grants = []gate.CertificateGrant{grant}
	err := w.gate.BreakGlass(w.now, w.wall(), c)
	w.note("certificate", fmt.Sprint(c, " ", err))
	if err == nil {
		if wrong != "" || floor == 0 && !c.Advance {
			w.fail("the certificate %+v is taken, whose %s is wrong", c, wrong)
		}
		if w.now < max(w.believable, g.alone).Add(worldSlack) {
			w.fail("a certificate is taken at %v, with contact until %v", w.now.Sub(origin), max(w.believable, g.alone).Sub(origin))
		}
		// The one before counts until this one is durable, and again if it never is.
		g.taken[resource] = append(g.taken[resource], worldCertificate{grant.Token, c.Expires})
	} else if !errors.Is(err, gate.ErrCertificate) {
		w.fail("%v", err)
	}
	w.take(w.gate.Take())
}

// reveal gives out the tokens of certificates that came to be in force. Of others nobody is told that they were taken, and a
// bare token of one would raise the floor above that of every holder: no better than a forged one.
func (w *world) reveal(openings []gate.Opening) {
	for _, o := range openings {
		if given := w.quorum.given[o.Resource]; o.Closed == "" && !slices.Contains(given, o.Token) {
			w.quorum.given[o.Resource] = append(given, o.Token)
		}
	}
}

// certifiedWrite writes under what a certificate allows, or did.
func (w *world) certifiedWrite(resource string) {
	if w.gate == nil {
		return
	}
	var tokens []fence.Token
	for _, o := range w.gate.Openings() {
		if o.Resource == resource {
			tokens = append(tokens, o.Token)
		}
	}
	if len(tokens) == 0 {
		w.oldWrite(resource)
		return
	}
	_ = w.write(resource, rapid.SampledFrom(slices.Compact(tokens)).Draw(w.t, "token"))
}

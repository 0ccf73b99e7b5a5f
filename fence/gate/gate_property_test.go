package gate_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/gate"
)

// Whatever network, disk, clients and crashes do: what is admitted and what is acknowledged is true of the storage. See the
// judgements of world.
func TestNothingStaleReachesTheStorage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, rapid.Bool().Draw(t, "calm"))
		w.connect()
		for range rapid.IntRange(1, 40).Draw(t, "turns") {
			w.turn()
			w.run(w.duration("span", rapid.SampledFrom([]time.Duration{0, 100 * time.Millisecond, time.Second, 20 * time.Second}).Draw(t, "scale")))
		}
		w.heal()
	})
}

// What certificates of break-glass allow is allowed, and nothing else: not to other guards, resources and tokens, not while
// there may be a quorum, not when one has been met, and not after they have expired. What the world judges otherwise holds
// throughout.
func TestCertificatesOpenNothingElse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t, true)
		w.connect()
		w.run(time.Second)
		for range rapid.IntRange(1, 4).Draw(t, "rounds") {
			resource := rapid.SampledFrom([]string{"close/a", "close/a", "close/b"}).Draw(t, "resource")
			w.issue(resource)
			w.run(time.Second)
			_ = w.write(resource, w.quorum.holds[resource])
			w.run(time.Second)
			w.disconnect()
			w.run(w.duration("cut off", 2*worldLease+worldSlack))
			for range rapid.IntRange(1, 20).Draw(t, "turns") {
				w.glassTurn(resource)
				w.run(w.duration("span", rapid.SampledFrom([]time.Duration{0, time.Second, 20 * time.Second, time.Minute}).Draw(t, "scale")))
			}
			w.connect()
			w.run(w.duration("connected", 20*time.Second))
		}
		w.heal()
		if open := w.gate.Openings(); slices.ContainsFunc(open, func(o gate.Opening) bool { return o.Closed == "" || !o.Told }) {
			w.fail("the quorum does not know of all that certificates did: %+v", open)
		}
	})
}

func (w *world) glassTurn(resource string) {
	switch rapid.SampledFrom([]string{"certificate", "certificate", "write", "write", "write", "write", "old write", "connect", "disconnect", "disconnect", "crash", "issue", "suspect", "disk"}).Draw(w.t, "turn") {
	case "certificate":
		w.breakGlass(resource)
	case "write":
		w.certifiedWrite(resource)
	case "old write":
		w.oldWrite(rapid.SampledFrom(worldResources).Draw(w.t, "resource"))
	case "connect":
		w.connect()
	case "disconnect":
		w.disconnect()
	case "crash":
		w.end()
		w.run(w.duration("down", 3*time.Second))
		w.start()
	case "issue":
		w.issue(resource)
	case "suspect":
		if w.gate != nil {
			w.distrust()
			w.step(gate.Suspicion{Wall: w.wall()})
		}
	case "disk":
		w.broken = !w.broken
	}
}

func (w *world) turn() {
	resource := rapid.SampledFrom(worldResources).Draw(w.t, "resource")
	turn := rapid.SampledFrom([]string{
		"write", "write", "write", "write", "write", "old write", "issue", "issue", "tell", "late news", "free",
		"connect", "connect", "connect", "disconnect", "crash", "crash", "restart", "lose", "roll back", "disk", "suspect", "hurry", "remove", "certificate", "certified write",
	}).Draw(w.t, "turn")
	switch turn {
	case "write":
		if w.quorum.holds[resource] == 0 {
			w.issue(resource)
		}
		_ = w.write(resource, w.quorum.holds[resource])
	case "old write":
		w.oldWrite(resource)
	case "issue":
		w.issue(resource)
	case "tell":
		w.tell(resource)
	case "late news":
		w.tellLate(resource)
	case "free":
		delete(w.quorum.holds, resource)
		delete(w.quorum.unproved, resource)
	case "connect":
		w.connect()
	case "disconnect":
		w.disconnect()
	case "crash":
		w.end()
	case "lose", "roll back":
		w.end()
		w.roll(turn == "lose")
		if rapid.Bool().Draw(w.t, "freed") { // so that no floor of its own comes back
			delete(w.quorum.holds, resource)
			delete(w.quorum.unproved, resource)
		}
		w.start()
		w.connect()
		w.run(w.duration("until the old write", 2*time.Second))
		w.oldWrite(resource)
	case "restart":
		w.stop()
	case "disk":
		w.broken = !w.broken
	case "suspect":
		if w.gate != nil {
			w.distrust()
			w.step(gate.Suspicion{})
		}
	case "remove": // by an operator, who answers for it
		w.quorum.session, w.quorum.removed = "", true
	case "certificate":
		w.breakGlass(resource)
	case "certified write":
		w.certifiedWrite(resource)
	case "hurry":
		w.deliver(&writv1.GuardResponse{Say: &writv1.GuardResponse_Hurry{}}, w.stream)
	}
	if w.gate == nil {
		w.run(w.duration("down", 3*time.Second))
		w.start()
		w.connect()
	}
}

// oldWrite writes under any token that the resource ever had.
func (w *world) oldWrite(resource string) {
	if given := w.quorum.given[resource]; len(given) > 0 {
		_ = w.write(resource, rapid.SampledFrom(given).Draw(w.t, "token"))
	}
}

// stop ends the process in good order, if it gets there in time.
func (w *world) stop() {
	left := false
	w.take(w.gate.Step(w.now, gate.Stop{}))
	for range 40 {
		if left = w.gate.Status().Left; left {
			break
		}
		w.run(500 * time.Millisecond)
	}
	clean := left && len(w.writing) == 0
	if left && len(w.under) > 0 {
		w.fail("left with writes under way")
	}
	w.end()
	w.disk.Clean = clean
}

// heal ends all faults. Every raise is acknowledged then, nothing is parked for long, and who holds a resource may write.
func (w *world) heal() {
	w.calm, w.broken = true, false
	w.run(time.Second)
	w.disconnect()
	w.connect()
	w.run(3 * (worldLease + worldSlack))
	if n := len(w.parked) + len(w.under); n > 0 {
		w.fail("%d writes neither end nor begin", n)
	}
	if s := w.gate.Status(); !s.Seeded || !s.Enrolled || s.StoreFailed {
		w.fail("does not come back: %+v", s)
	}
	if n := len(w.quorum.unproved); n > 0 {
		w.fail("%d raises are not acknowledged: %v", n, w.quorum.unproved)
	}
	for _, r := range worldResources {
		if token := w.quorum.holds[r]; token != 0 {
			if err := w.write(r, token); err != nil {
				w.fail("the holder of %s may not write: %v", r, err)
			}
		}
	}
	w.run(time.Second)
	if len(w.parked) > 0 {
		w.fail("holders have to wait")
	}
	for r, token := range w.quorum.holds {
		if w.highest[r] != token {
			w.fail("%s was not written under %v", r, token)
		}
		var stale *fence.StaleError
		if _, _, err := w.gate.Admit(w.now, r, token-1, true); token.Sequence() > 1 && !errors.As(err, &stale) {
			w.fail("%s %v is not refused: %v", r, token-1, err)
		}
	}
}

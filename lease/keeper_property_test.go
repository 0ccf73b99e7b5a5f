package lease

import (
	"slices"
	"sort"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease/clock"
)

// keeperWorld is a holder, a coordinator and a network between them, in real time. Both clocks run at rates of their own;
// the holder's may stand still for a while without showing it, and then the suspicion comes first of all.
type keeperWorld struct {
	t      *rapid.T
	keeper *Keeper
	calm   bool // a network that delivers well in time

	real       int64 // real time, ns
	holderRate int64 // per million
	serverRate int64
	frozen     int64 // how much real time the holder's clock has missed
	queue      []keeperWorldEvent

	ttl     map[KeeperID]time.Duration
	expires map[KeeperID]int64         // at the coordinator, by its clock
	belief  map[KeeperID]clock.Instant // what the shell was told
	lost    map[KeeperID]bool
	wake    clock.Instant
}

type keeperWorldEvent struct {
	at     int64
	holder bool // happens to the holder, so it waits while the holder is paused
	do     func()
}

const (
	keeperMillion  = 1_000_000
	keeperWorldPPM = 50_000
)

func (w *keeperWorld) holderClock() clock.Instant {
	return keeperOrigin.Add(time.Duration((w.real - w.frozen) / 1000 * w.holderRate / 1000))
}

func (w *keeperWorld) serverClock() int64 { return w.real / 1000 * w.serverRate / 1000 }

// holderReaches returns a real instant at which the holder's clock shows at least i.
func (w *keeperWorld) holderReaches(i clock.Instant) int64 {
	return (int64(i.Sub(keeperOrigin))/w.holderRate+1)*keeperMillion + w.frozen
}

func (w *keeperWorld) at(e keeperWorldEvent) {
	i := sort.Search(len(w.queue), func(i int) bool { return w.queue[i].at > e.at })
	w.queue = slices.Insert(w.queue, i, e)
}

func (w *keeperWorld) atServer(real int64, do func()) { w.at(keeperWorldEvent{real, false, do}) }

func (w *keeperWorld) atHolder(real int64, event KeeperEvent) {
	w.at(keeperWorldEvent{real, true, func() { w.step(event) }})
}

// hop draws the fate of a message.
func (w *keeperWorld) hop(label string, ttl time.Duration) (delay int64, lost bool) {
	most := int64(ttl)
	if w.calm {
		most = int64(ttl) / 20
	}
	delay = rapid.Int64Range(0, most).Draw(w.t, label)
	return delay, !w.calm && rapid.IntRange(0, 3).Draw(w.t, label+" lost") == 0
}

func (w *keeperWorld) acquire(id KeeperID, ttl time.Duration) {
	w.ttl[id] = ttl
	sent := w.holderClock()
	there, _ := w.hop("acquire", ttl)
	back, _ := w.hop("grant", ttl)
	w.atServer(w.real+there, func() {
		w.expires[id] = w.serverClock() + int64(ttl)
		w.atHolder(w.real+back, KeeperGranted{ID: id, Ref: Ref{Resource: "r", Token: fence.Token(1<<48 | id)}, TTL: ttl, SentAt: sent})
	})
}

// send carries a renewal over the network: intake, decision and answer, perhaps twice, perhaps never.
func (w *keeperWorld) send(r Renewal) {
	if r.SentAt != w.holderClock() {
		w.t.Fatalf("renewal at %v says that it was sent at %v", w.holderClock(), r.SentAt)
	}
	ttl := w.ttl[r.ID(0)]
	for i := range r.Len() {
		ttl = min(ttl, w.ttl[r.ID(i)])
	}
	there, lost := w.hop("renewal", ttl)
	if lost {
		if rapid.Bool().Draw(w.t, "noticed") {
			w.atHolder(w.real+there, KeeperRenewed{Renewal: r, Failed: true})
		}
		return
	}
	w.atServer(w.real+there, func() {
		var outcome RenewOutcome
		for i := range r.Len() {
			id := r.ID(i)
			if w.serverClock() >= w.expires[id] {
				outcome.Failures = append(outcome.Failures, RenewFailure{Index: i, Err: &Error{Reason: ReasonExpired}})
				continue
			}
			w.expires[id] = w.serverClock() + int64(w.ttl[id])
		}
		for range rapid.IntRange(1, 2).Draw(w.t, "copies") {
			if back, lost := w.hop("answer", ttl); !lost {
				w.atHolder(w.real+back, KeeperRenewed{Renewal: r, Outcome: outcome})
			}
		}
	})
}

// step steps the core and holds its effects against the coordinator's state.
func (w *keeperWorld) step(event KeeperEvent) {
	now := w.holderClock()
	for id, until := range w.belief {
		// What the shell believed until this very instant.
		w.judge(id, min(until, now))
	}
	effects := w.keeper.Step(now, event)
	if err := w.keeper.check(effects); err != nil {
		w.t.Fatal(err)
	}
	for _, b := range effects.Beliefs {
		if w.lost[b.ID] {
			w.t.Fatalf("lease %d was lost and is believed again", b.ID)
		}
		w.belief[b.ID] = b.Until
		w.judge(b.ID, b.Until)
	}
	if _, ok := event.(KeeperSuspected); ok {
		for id, until := range w.belief {
			if until != 0 && !w.lost[id] {
				w.t.Fatalf("lease %d is believed right after a suspicion", id)
			}
		}
	}
	for _, l := range effects.Lost {
		w.lost[l.ID] = true
		delete(w.belief, l.ID)
	}
	for id, until := range w.belief {
		if until != 0 && now >= until {
			w.t.Fatalf("lease %d is kept although its deadline has come", id)
		}
	}
	for _, r := range effects.Renewals {
		for i := range r.Len() {
			if w.lost[r.ID(i)] {
				w.t.Fatalf("lease %d was lost and is renewed", r.ID(i))
			}
		}
		w.send(r)
	}
	w.wake = effects.Wake
}

// judge fails if belief until that instant would outlive the lease at the coordinator (S4).
func (w *keeperWorld) judge(id KeeperID, until clock.Instant) {
	if until == 0 {
		return
	}
	// A real instant by which the coordinator's clock certainly shows the deadline.
	freed := (w.expires[id]/w.serverRate + 1) * keeperMillion
	holder := keeperOrigin.Add(time.Duration((freed - w.frozen) / 1000 * w.holderRate / 1000))
	// Clocks here tick in steps of a microsecond; what is freed between two of them is not at stake.
	if until > holder.Add(2*time.Microsecond) && w.real <= freed {
		w.t.Fatalf("lease %d is believed until %v, but may be another's from %v on", id, until.Sub(keeperOrigin), holder.Sub(keeperOrigin))
	}
}

// run lets the world go on until a real instant.
func (w *keeperWorld) run(until int64) {
	for {
		next, timer := until, false
		if w.wake != 0 {
			next, timer = min(next, max(w.real, w.holderReaches(w.wake))), true
		}
		switch {
		case len(w.queue) > 0 && w.queue[0].at <= next:
			event := w.queue[0]
			w.queue = w.queue[1:]
			w.real = max(w.real, event.at)
			event.do()
		case timer && next < until:
			w.real = next
			w.step(KeeperTick{})
		default:
			w.real = max(w.real, until)
			return
		}
	}
}

// pause lets the rest of the world go on without the holder, whose first event afterwards is given. What was on its way
// to the holder arrives then.
func (w *keeperWorld) pause(span int64, hidden bool, first KeeperEvent) {
	end := w.real + span
	var arrived []keeperWorldEvent
	for len(w.queue) > 0 && w.queue[0].at <= end {
		event := w.queue[0]
		w.queue = w.queue[1:]
		if event.holder {
			arrived = append(arrived, event)
			continue
		}
		w.real = max(w.real, event.at)
		event.do()
	}
	w.real = end
	if hidden {
		w.frozen += span
	}
	w.step(first)
	for _, event := range arrived {
		event.do()
	}
}

func newKeeperWorld(t *rapid.T, calm bool) *keeperWorld {
	rate := rapid.OneOf(
		rapid.SampledFrom([]int64{keeperMillion - keeperWorldPPM, keeperMillion + keeperWorldPPM}),
		rapid.Int64Range(keeperMillion-keeperWorldPPM, keeperMillion+keeperWorldPPM),
	)
	keeper, err := NewKeeper(KeeperConfig{
		Drift:          clock.Drift{PPM: keeperWorldPPM},
		RenewPermille:  rapid.IntRange(100, 500).Draw(t, "renew"),
		SpreadPermille: rapid.IntRange(0, 200).Draw(t, "spread"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return &keeperWorld{
		t: t, keeper: keeper, calm: calm,
		holderRate: rate.Draw(t, "holder rate"), serverRate: rate.Draw(t, "server rate"),
		ttl: map[KeeperID]time.Duration{}, expires: map[KeeperID]int64{},
		belief: map[KeeperID]clock.Instant{}, lost: map[KeeperID]bool{},
	}
}

// S4: whatever the network, the clocks and the scheduler do, belief ends before the coordinator frees the lease.
func TestBeliefNeverOutlivesTheLease(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newKeeperWorld(t, false)
		for id := range KeeperID(6) {
			w.acquire(id+1, time.Duration(rapid.Int64Range(1, 40).Draw(t, "ttl"))*250*time.Millisecond)
		}
		for range rapid.IntRange(1, 12).Draw(t, "turns") {
			span := rapid.Int64Range(0, int64(3*time.Second)).Draw(t, "span")
			id := KeeperID(rapid.Uint64Range(1, 6).Draw(t, "id"))
			switch rapid.SampledFrom([]string{"run", "run", "stall", "freeze", "verify", "release"}).Draw(t, "turn") {
			case "run":
				w.run(w.real + span)
			case "stall": // the process does not run, its clock does
				w.pause(span, false, KeeperTick{})
			case "freeze": // neither does, and the time of day tells: the shell believes nothing until it has said so
				for id := range w.belief {
					w.belief[id] = 0
				}
				w.pause(span, true, KeeperSuspected{})
			case "verify":
				w.step(KeeperVerify{ID: id})
			case "release":
				w.step(KeeperReleased{ID: id})
				if !w.lost[id] && w.belief[id] != 0 {
					w.lost[id] = true
					delete(w.belief, id)
				}
			}
		}
	})
}

// With a network that works, nothing is ever lost.
func TestRenewedLeasesAreKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newKeeperWorld(t, true)
		for id := range KeeperID(4) {
			w.acquire(id+1, time.Duration(rapid.Int64Range(4, 40).Draw(t, "ttl"))*250*time.Millisecond)
			w.run(w.real + rapid.Int64Range(0, int64(time.Second)).Draw(t, "gap"))
		}
		w.run(w.real + int64(30*time.Second))
		if len(w.lost) > 0 || w.keeper.Len() != 4 {
			t.Fatalf("lost %v, kept %d", w.lost, w.keeper.Len())
		}
	})
}

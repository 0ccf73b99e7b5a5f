package cron

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/singleton/schedule"
)

// cronWorld is a quorum that keeps one checkpoint under one token, and storage that compares tokens and records effects by
// id. Holders come and go; one that was replaced goes on and believes.
type cronWorld struct {
	t        *rapid.T
	schedule *schedule.Schedule
	policy   Policy
	began    time.Time
	now      time.Time // real
	token    fence.Token
	stored   []byte
	control  Control
	holders  []*holder
	floor    fence.Token            // of the storage
	effects  map[string]fence.Token // by id
	runs     map[string]map[int]int // starts by id and attempt
	order    []time.Time            // the slots whose effects were admitted, in order
	claimed  map[string]bool        // ids that a stored document has shown as running
}

type holder struct {
	machine *Machine
	token   fence.Token
	skew    time.Duration
	running *Tick
	storing []byte
	over    bool
}

func (w *cronWorld) newest() *holder {
	if len(w.holders) == 0 {
		return nil
	}
	if h := w.holders[len(w.holders)-1]; h.token == w.token && !h.over {
		return h
	}
	return nil
}

func (w *cronWorld) step(h *holder, e Event) {
	if h.over {
		return
	}
	before := h.machine.state.Cursor
	out := h.machine.Step(w.now.Add(h.skew), e)
	if _, granted := e.(Granted); !granted && h.machine.state.Cursor.Before(before) {
		w.t.Fatalf("the cursor went from %s back to %s", before, h.machine.state.Cursor)
	}
	if out.Refused != nil {
		w.t.Fatalf("refused: %v", out.Refused)
	}
	if out.Run != nil {
		if h.running != nil {
			w.t.Fatalf("%s runs beside %s", out.Run.ID, h.running.ID)
		}
		if !w.claimed[out.Run.ID] {
			w.t.Fatalf("%s runs and was never claimed in what is stored", out.Run.ID)
		}
		h.running = out.Run
		if w.runs[out.Run.ID] == nil {
			w.runs[out.Run.ID] = make(map[int]int)
		}
		if w.runs[out.Run.ID][out.Run.Attempt]++; w.runs[out.Run.ID][out.Run.Attempt] > 1 {
			w.t.Fatalf("attempt %d of %s runs twice", out.Run.Attempt, out.Run.ID)
		}
	}
	if out.Store != nil {
		if h.storing != nil {
			w.t.Fatal("two stores at once")
		}
		if whole := h.machine.State().Encode(); !bytes.Equal(out.Store, whole) {
			w.t.Fatalf("stores\n%s\nand has\n%s", out.Store, whole)
		}
		h.storing = out.Store
	}
	if out.Over {
		if h.running != nil || h.storing != nil {
			w.t.Fatalf("over while %v runs", h.running)
		}
		h.over = true
	}
}

// arrive lets what a holder stores reach the quorum, which knows the newest token.
func (w *cronWorld) arrive(h *holder) {
	data := h.storing
	if data == nil {
		return
	}
	h.storing = nil
	if h.token != w.token {
		w.step(h, NotStored{})
		return
	}
	w.stored = data
	state, err := ParseState(data)
	if err != nil {
		w.t.Fatal(err)
	}
	if state.Running != nil {
		w.claimed[state.Running.ID] = true
	}
	w.step(h, Stored{})
}

// effect has what runs write to the storage, which refuses old tokens and what it has under the id already.
func (w *cronWorld) effect(h *holder) {
	if h.running == nil || h.token < w.floor {
		return
	}
	w.floor = h.token
	if _, known := w.effects[h.running.ID]; !known {
		w.effects[h.running.ID] = h.token
		if !h.running.Manual {
			w.order = append(w.order, h.running.Slot)
		}
	}
}

func (w *cronWorld) finish(h *holder, outcome Outcome) {
	if h.running != nil {
		h.running = nil
		w.step(h, Returned{Outcome: outcome})
	}
}

func (w *cronWorld) grant(skew time.Duration) *holder {
	m, err := NewMachine(Config{Job: "job", Schedule: w.schedule, Policy: w.policy})
	if err != nil {
		w.t.Fatal(err)
	}
	w.token++
	h := &holder{machine: m, token: w.token, skew: skew}
	w.holders = append(w.holders, h)
	w.step(h, Granted{Token: h.token, Holder: fmt.Sprint(h.token), Checkpoint: w.stored, Control: w.control})
	return h
}

func newCronWorld(t *rapid.T, specs ...string) *cronWorld {
	s, err := schedule.Parse(rapid.SampledFrom(specs).Draw(t, "spec"), "")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	return &cronWorld{
		t: t, schedule: s, began: at, now: at, effects: make(map[string]fence.Token), runs: make(map[string]map[int]int),
		claimed: make(map[string]bool),
	}
}

// Whatever holders, clocks, messages and people do: nothing runs that was not claimed in what is stored, no attempt runs
// twice, and the effects of slots come in order and so never again.
func TestNoEffectTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newCronWorld(t, "* * * * *", "*/7 * * * *", "@every 90s", "*/20 * * * * *")
		w.policy = Policy{
			CatchUp:     rapid.SampledFrom([]CatchUp{CatchUpLatest, CatchUpAll, CatchUpNone}).Draw(t, "catch up"),
			Overlap:     rapid.SampledFrom([]Overlap{OverlapSkip, OverlapBufferOne, OverlapCancelOther}).Draw(t, "overlap"),
			Jitter:      rapid.SampledFrom([]time.Duration{0, 30 * time.Second, 10 * time.Minute}).Draw(t, "jitter"),
			MaxAttempts: rapid.IntRange(1, 4).Draw(t, "attempts"),
		}
		any := func(t *rapid.T) *holder {
			if len(w.holders) == 0 {
				t.Skip("nobody")
			}
			return w.holders[len(w.holders)-1-rapid.IntRange(0, min(2, len(w.holders)-1)).Draw(t, "holder")]
		}
		triggers := 0
		t.Repeat(map[string]func(*rapid.T){
			"pass": func(t *rapid.T) {
				w.now = w.now.Add(time.Duration(rapid.IntRange(1, 600).Draw(t, "seconds")) * time.Second)
				for _, h := range w.holders {
					w.step(h, Elapsed{})
				}
			},
			"jump": func(t *rapid.T) {
				any(t).skew += time.Duration(rapid.IntRange(-3600, 3600).Draw(t, "seconds")) * time.Second
			},
			"grant": func(t *rapid.T) {
				if h := w.newest(); h == nil || rapid.Bool().Draw(t, "lost") {
					w.grant(time.Duration(rapid.IntRange(-60, 60).Draw(t, "skew")) * time.Second)
				}
			},
			"arrive":  func(t *rapid.T) { w.arrive(any(t)) },
			"arrives": func(t *rapid.T) { w.arrive(any(t)) },
			"fail": func(t *rapid.T) {
				if h := any(t); h.storing != nil { // it may have arrived all the same
					if data := h.storing; rapid.Bool().Draw(t, "arrived") && h.token == w.token {
						w.stored = data
						if s, _ := ParseState(data); s.Running != nil {
							w.claimed[s.Running.ID] = true
						}
					}
					h.storing = nil
					w.step(h, NotStored{})
				}
			},
			"effect": func(t *rapid.T) { w.effect(any(t)) },
			"return": func(t *rapid.T) {
				h := any(t)
				w.effect(h)
				w.finish(h, rapid.SampledFrom([]Outcome{Done, Done, Failed}).Draw(t, "outcome"))
			},
			"end": func(t *rapid.T) { w.step(any(t), Ended{}) },
			"trigger": func(t *rapid.T) {
				triggers++
				if c, err := w.control.WithTrigger(Trigger{ID: fmt.Sprint(triggers), At: w.now}); err == nil {
					w.control = c
				}
				if h := w.newest(); h != nil {
					w.step(h, Controlled{Control: w.control})
				}
			},
			"": func(t *rapid.T) {
				for i := 1; i < len(w.order); i++ {
					if !w.order[i].After(w.order[i-1]) {
						t.Fatalf("the effect of %s came after that of %s", w.order[i], w.order[i-1])
					}
				}
			},
		})
	})
}

// With CatchUpAll, holders that die and are replaced within the window, and clocks that agree, every slot has its effect.
func TestEverySlotWithinTheWindowHasItsEffect(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newCronWorld(t, "* * * * *", "*/2 * * * *", "@every 90s")
		w.policy = Policy{CatchUp: CatchUpAll, Window: 2 * time.Hour, Max: 100, Overlap: OverlapBufferOne, MaxAttempts: 100}
		h := w.grant(0)
		w.arrive(h)
		settle := func() {
			for h.storing != nil || h.running != nil {
				w.arrive(h)
				w.effect(h)
				w.finish(h, Done)
			}
		}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			w.now = w.now.Add(time.Duration(rapid.IntRange(1, 200).Draw(t, "seconds")) * time.Second)
			switch rapid.SampledFrom([]string{"work", "die before the claim", "die before it arrives", "die running", "die with the effect"}).Draw(t, "what") {
			case "work":
				w.step(h, Elapsed{})
				settle()
				continue
			case "die before the claim":
			case "die before it arrives":
				w.step(h, Elapsed{})
			case "die running":
				w.step(h, Elapsed{})
				w.arrive(h)
			case "die with the effect":
				w.step(h, Elapsed{})
				w.arrive(h)
				w.effect(h)
			}
			w.now = w.now.Add(time.Duration(rapid.IntRange(1, 600).Draw(t, "takeover")) * time.Second)
			h = w.grant(0)
			if rapid.Bool().Draw(t, "settles") {
				settle()
			}
		}
		w.step(h, Elapsed{})
		settle()
		for slot, ok := w.schedule.Next(w.began); ok && !slot.After(w.now); slot, ok = w.schedule.Next(slot) {
			if _, ok := w.effects[SlotID("job", slot)]; !ok {
				t.Fatalf("the slot %s had no effect by %s; the state is %+v", slot, w.now, h.machine.State())
			}
		}
	})
}

package history

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// world is a correct server, written without a look at the model: it acts at one moment of each call, ends leases when it
// pleases after their deadline, and loses answers.
type world struct {
	t     *rapid.T
	now   int // ms
	ops   []Op
	token uint64
	who   string
	end   End
	held  bool
	data  string
	until int
	names int
	known map[uint64]string // grants that their holder knows of
}

func (w *world) draw(most int, label string) int { return rapid.IntRange(0, most).Draw(w.t, label) }

// TestCorrectServersPass: whatever a correct server does, nobody is accused.
func TestCorrectServersPass(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{t: t, now: 50, known: make(map[uint64]string)}
		for range rapid.IntRange(1, 40).Draw(t, "calls") {
			w.now += w.draw(60, "pause")
			w.call()
		}
		if err := Check(w.ops, time.Minute); err != nil {
			t.Fatal(err)
		}
	})
}

// call carries out one call, at w.now.
func (w *world) call() {
	op := span(Op{}, w.now-w.draw(50, "call before"), w.now+w.draw(50, "return after"))
	intake := int(op.Call/time.Millisecond) + w.draw(w.now-int(op.Call/time.Millisecond), "intake")
	if w.held && w.now >= w.until && w.draw(1, "notice expiry") == 1 {
		w.held, w.end = false, EndExpired
	}
	if w.draw(9, "nothing happens") == 0 {
		w.nothing(op)
		return
	}
	switch kind := Kind(1 + w.draw(int(Get)-1, "kind")); kind {
	case Acquire:
		op = w.acquire(op, intake)
	case Get:
		op = w.get(op)
	case Renew, Release, Checkpoint:
		if op.Token = uint64(w.draw(int(w.token), "token")); w.known[op.Token] == "" {
			return
		}
		op.Kind, op.Instance = kind, w.known[op.Token]
		op = w.under(op, intake)
	}
	lost := w.draw(5, "answer lost") == 0
	if op.Kind == Acquire && op.Outcome == OK && !lost {
		w.known[op.Saw.Token] = op.Instance
	}
	if lost {
		// The client may have given up long before the effect.
		op.Outcome, op.Saw = Unknown, Sight{}
		op.Return = op.Call + time.Duration(w.draw(50, "gave up after"))*time.Millisecond
	}
	w.ops = append(w.ops, op)
}

// nothing is a call that never reaches the server.
func (w *world) nothing(op Op) {
	op.Kind, op.Instance, op.Outcome = Acquire, w.name(), []Outcome{Unknown, Refused}[w.draw(1, "refused")]
	if name := w.known[w.token]; name != "" && w.draw(1, "by token") == 1 {
		op.Kind, op.Instance, op.Token = []Kind{Renew, Release, Checkpoint}[w.draw(2, "kind")], name, w.token
		op.Data = w.name()
	}
	w.ops = append(w.ops, op)
}

func (w *world) name() string {
	w.names++
	return fmt.Sprint("n", w.names)
}

func (w *world) acquire(op Op, intake int) Op {
	op.Kind, op.Instance = Acquire, w.name()
	if w.held && w.until <= intake {
		w.held, w.end = false, EndExpired
	}
	if w.held {
		op.Outcome, op.Saw = Held, Sight{Token: w.token, Holder: w.who}
		return op
	}
	w.token += uint64(1 + w.draw(3, "skip"))
	w.held, w.who, w.until = true, op.Instance, intake+ttl
	op.Outcome, op.Saw = OK, Sight{Token: w.token, Holder: w.who, Data: w.data}
	return op
}

func (w *world) get(op Op) Op {
	op.Kind, op.Outcome = Get, OK
	if w.token == 0 {
		op.Outcome = NotFound
		return op
	}
	op.Saw = Sight{Token: w.token, Holder: w.who}
	if !w.held {
		op.Saw.Free, op.Saw.End = true, w.end
	}
	return op
}

func (w *world) under(op Op, intake int) Op {
	switch {
	case op.Token < w.token:
		op.Outcome = NotHolder
	case !w.held && w.end == EndReleased:
		op.Outcome = Released
	case !w.held:
		op.Outcome = Expired
	case w.until <= intake:
		op.Outcome = Expired
		w.until = 0 // there is no way back
	case op.Kind == Renew:
		op.Outcome, w.until = OK, max(w.until, intake+ttl)
	case op.Kind == Release:
		op.Outcome, w.held, w.end = OK, false, EndReleased
	default:
		op.Outcome, op.Data = OK, w.name()
		w.data = op.Data
	}
	return op
}

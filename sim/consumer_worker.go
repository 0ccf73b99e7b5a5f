package sim

import (
	"slices"
	"strconv"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/sim/judge"
	"github.com/writ-io/writ/singleton"
	"github.com/writ-io/writ/singleton/partition"
)

// How long a program takes to call Consume again.
const (
	rejoinLeast = 100 * time.Millisecond
	rejoinMost  = 2 * time.Second
)

// partitionWorker asks for the lease of a partition once, and does what is done under it: the labour of its campaign.
type partitionWorker struct {
	consumer *consumer
	index    int
	campaign *campaign
	said     []partition.Event
	over     bool

	// Of the term.
	grip     *grip
	offset   uint64    // of the last item that is done
	stored   uint64    // as the quorum has it
	function *function // of the user's; nil: it was not started
	revoked  bool      // finish, and return
	heedless bool      // it returns only when its context has ended
	returned func(singleton.RunnerReturn)
	released bool // the machine does not want the lease any more
	stopped  bool // the term's context has ended
}

// say tells the machine once of what has become of the partition.
func (w *partitionWorker) say(events ...partition.Event) {
	for _, e := range events {
		if !w.over && !slices.Contains(w.said, e) {
			w.said = append(w.said, e)
			w.consumer.tell(e)
		}
	}
}

// end says the last of it.
func (w *partitionWorker) end() {
	if slices.Contains(w.said, partition.Event(partition.Granted{Index: w.index})) {
		w.say(partition.Lost{Index: w.index}, partition.Returned{Index: w.index}, partition.Released{Index: w.index})
	} else {
		w.say(partition.Refused{Index: w.index})
	}
	w.over = true
}

func (w *partitionWorker) begin(g *grip, grant *lease.Grant, returned func(singleton.RunnerReturn)) {
	w.grip, w.returned = g, returned
	w.offset = judge.Offset(grant.Checkpoint)
	w.stored = w.offset
	w.say(partition.Granted{Index: w.index})
}

// stop ends the context of the term.
func (w *partitionWorker) stop() {
	if w.stopped || w.grip == nil {
		return
	}
	w.stopped = true
	w.say(partition.Lost{Index: w.index})
	if w.function != nil {
		w.function.stop()
	}
	w.leave()
}

// start starts the function.
func (w *partitionWorker) start() {
	if w.stopped || w.grip == nil || w.over {
		return
	}
	s := w.consumer.service
	w.function = s.call(w.consumer.work, w.grip, func(how singleton.RunnerReturn) {
		w.function = nil
		if how == singleton.ReturnedError && !w.stopped {
			w.consumer.fail()
		}
		w.say(partition.Returned{Index: w.index})
		w.leave()
	})
	w.heedless = w.function.deaf || s.dice().Chance(200)
	w.work()
}

// work does one item after the other, and stores now and then how far it is.
func (w *partitionWorker) work() {
	f, s := w.function, w.consumer.service
	f.after(s.dice().About(max(w.consumer.work.Takes, time.Millisecond)), func() {
		switch {
		case !f.works():
		case w.revoked && !w.heedless:
			w.store(func() { f.finish(singleton.ReturnedNil) })
		case s.dice().Chance(w.consumer.work.Fails):
			f.finish(singleton.ReturnedError)
		default:
			w.item(f)
		}
	})
}

func (w *partitionWorker) item(f *function) {
	next := w.offset + 1
	w.consumer.service.run.storage.item(f, w.consumer.work.Name, w.index, next, func() {
		if !f.works() || w.offset >= next {
			return
		}
		w.offset = next
		if next%3 == 0 {
			w.store(w.work)
			return
		}
		w.work()
	})
}

// store stores the offset, and goes on.
func (w *partitionWorker) store(then func()) {
	f, offset := w.function, w.offset
	if offset == w.stored {
		then()
		return
	}
	w.grip.checkpoint([]byte(strconv.FormatUint(offset, 10)+" "+w.grip.token.Decimal()), f.works, func(ok bool) {
		if f.works() {
			if ok {
				w.stored = offset
			}
			then()
		}
	})
}

// revoke has the function finish.
func (w *partitionWorker) revoke() {
	w.consumer.service.run.mark(MarkRevoked)
	w.revoked = true
}

// release lets the lease go.
func (w *partitionWorker) release() {
	w.released = true
	w.leave()
}

// leave returns when there is nothing to wait for any more.
func (w *partitionWorker) leave() {
	if w.returned != nil && w.function == nil && (w.released || w.stopped) {
		returned := w.returned
		w.returned = nil
		returned(singleton.ReturnedNil)
	}
}

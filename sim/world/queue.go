package world

import "time"

// event is something that happens at an instant. Events of one instant happen in the order in which they were scheduled.
type event struct {
	at       time.Duration
	sequence uint64
	task     *task
}

func (e event) before(o event) bool {
	return e.at < o.at || e.at == o.at && e.sequence < o.sequence
}

// task is what happens then: do, in one life of a process if there is one, behind the faults of the link that it comes over
// if it is a packet; or an alarm.
type task struct {
	do      func()
	process *Process // nil: do is nobody's
	life    uint64
	link    *link  // nil: it is no packet
	alarm   *Alarm // nil: it is no alarm
	set     uint64 // which setting of the alarm
	free    *task  // the next one that is to be used again
}

func (t *task) happen() {
	switch {
	case t.link != nil:
		t.link.arrive(t.life, t.do)
	case t.alarm != nil:
		t.alarm.wake(t.life, t.set)
	case t.process != nil:
		t.process.DoIn(t.life, t.do)
	default:
		t.do()
	}
}

// queue holds what is going to happen. What is soon stands apart from the rest: most of that are time limits, which are many
// and nearly always come to nothing, and every packet would have to find its place among them.
type queue struct {
	soon, late heap
	free       *task // tasks are used again: there is one for every event
}

// soon is what comes up to so much later.
const soon = 100 * time.Millisecond

func (q *queue) push(now, at time.Duration, sequence uint64, t task) {
	kept := q.free
	if kept == nil {
		kept = new(task)
	} else {
		q.free = kept.free
	}
	*kept = t
	e := event{at, sequence, kept}
	if at-now < soon {
		q.soon.push(e)
	} else {
		q.late.push(e)
	}
}

// next is the heap that holds the next event; nil if there is none.
func (q *queue) next() *heap {
	switch {
	case len(q.late) == 0 && len(q.soon) == 0:
		return nil
	case len(q.late) == 0 || len(q.soon) > 0 && q.soon[0].before(q.late[0]):
		return &q.soon
	default:
		return &q.late
	}
}

// pop takes the first event of a heap out.
func (q *queue) pop(h *heap) (event, task) {
	e := h.pop()
	t := *e.task
	*e.task = task{free: q.free}
	q.free = e.task
	return e, t
}

// heap is one whose parents come before their four children: that is flatter than a binary one, and so faster for so many
// short-lived events.
type heap []event

func (h *heap) push(e event) {
	events := append(*h, e)
	i := len(events) - 1
	for i > 0 {
		parent := (i - 1) / 4
		if !e.before(events[parent]) {
			break
		}
		events[i] = events[parent]
		i = parent
	}
	events[i] = e
	*h = events
}

func (h *heap) pop() event {
	events := *h
	top := events[0]
	last := len(events) - 1
	e := events[last]
	events[last] = event{}
	events = events[:last]
	*h = events
	if last == 0 {
		return top
	}
	i := 0
	for {
		child := 4*i + 1
		if child >= last {
			break
		}
		least := child
		for c := child + 1; c < min(child+4, last); c++ {
			if events[c].before(events[least]) {
				least = c
			}
		}
		if !events[least].before(e) {
			break
		}
		events[i] = events[least]
		i = least
	}
	events[i] = e
	return top
}

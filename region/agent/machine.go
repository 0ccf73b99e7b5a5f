//writ:core

package agent

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// Key names a task: it runs at most once.
type Key struct {
	Group     string
	Promotion string
	Step      uint64
	Kind      writv1.HookKind
}

func (k Key) String() string {
	return fmt.Sprintf("%s of %s, step %d", kindName(k.Kind), k.Promotion, k.Step)
}

// kindName is a hook's name in configurations: drain, promote and so on.
func kindName(k writv1.HookKind) string {
	return strings.ToLower(strings.TrimPrefix(k.String(), "HOOK_KIND_"))
}

func keyOf(t *writv1.Task) Key {
	return Key{Group: t.GetGroup(), Promotion: t.GetPromotion(), Step: t.GetStep(), Kind: t.GetKind()}
}

// Order says which of two tasks of a group is newer.
type Order struct {
	Epoch     uint32
	Term      int64
	Promotion string
	Step      uint64
}

func orderOf(t *writv1.Task) Order {
	return Order{Epoch: t.GetEpoch(), Term: t.GetTerm(), Promotion: t.GetPromotion(), Step: t.GetStep()}
}

// compareTerms orders by coordinator.
func (o Order) compareTerms(p Order) int {
	return cmp.Or(cmp.Compare(o.Epoch, p.Epoch), cmp.Compare(o.Term, p.Term))
}

// Entry is what the journal keeps of a task: without a result it has begun, and is not known to have ended.
type Entry struct {
	Key    Key
	Order  Order
	Result *writv1.TaskResult
}

// Machine decides which hooks run. It is a pure core: [Agent] journals what it is told to before it does anything else of
// what a step wants done.
type Machine struct {
	known  map[Key]*writv1.TaskResult // nil: it had begun when the agent started; of each group as many as the journal keeps
	groups map[string]*lane
	// unsaved are results that the journal did not take, in the order in which they came.
	unsaved []Entry
}

// lane is one group's.
type lane struct {
	seen    Order             // of the newest coordinator; its promotion and step do not count
	steps   map[string]uint64 // the newest step of each of its promotions
	running *writv1.Task      // nil: none
	ended   bool              // the running one has been cancelled, and not yet said how it went
	next    []*writv1.Task
	known   []Key // oldest first
}

// notice takes note of a task unless it comes before what has been seen. Steps count within a promotion; answers of one
// coordinator are taken in the order in which they were asked for, so that of two promotions in a term neither is before.
func (l *lane) notice(o Order) bool {
	switch c := o.compareTerms(l.seen); {
	case c < 0 || c == 0 && o.Step < l.steps[o.Promotion]:
		return false
	case c > 0 || l.steps == nil:
		l.seen, l.steps = o, make(map[string]uint64)
	}
	l.steps[o.Promotion] = o.Step
	return true
}

// Event is something that happens to the machine.
type Event interface{ agentEvent() }

// Offered is the tasks of one answer of the quorum.
type Offered struct{ Tasks []*writv1.Task }

// Finished says how a hook went that the machine started.
type Finished struct{ Result *writv1.TaskResult }

// Refused says that the journal did not take an entry; nothing of it has happened.
type Refused struct{ Entry Entry }

// Retry asks for entries that were refused before.
type Retry struct{}

func (Offered) agentEvent()  {}
func (Finished) agentEvent() {}
func (Refused) agentEvent()  {}
func (Retry) agentEvent()    {}

// Effects is what a step wants done, in this order.
type Effects struct {
	// Cancel ends hooks that run; each still reports as finished.
	Cancel []Key
	// Begin are tasks whose entry has to be in the journal before their hook starts. Restarted ones had begun before.
	Begin []Begin
	// Save are results that have to be in the journal before they are reported.
	Save []Entry
	// Report are results that are in the journal.
	Report []*writv1.TaskResult
}

// Begin is a task to start.
type Begin struct {
	Task *writv1.Task
	// Restarted: the agent ended when the hook was running.
	Restarted bool
}

// NewMachine goes on with what the journal holds.
func NewMachine(entries []Entry) *Machine {
	m := &Machine{known: make(map[Key]*writv1.TaskResult), groups: make(map[string]*lane)}
	for _, e := range entries {
		m.remember(e.Key, e.Result)
		m.lane(e.Key.Group).notice(e.Order)
	}
	return m
}

func (m *Machine) lane(group string) *lane {
	l := m.groups[group]
	if l == nil {
		l = &lane{}
		m.groups[group] = l
	}
	return l
}

// remember keeps how a task went, and forgets the oldest of its group above what is kept.
func (m *Machine) remember(key Key, result *writv1.TaskResult) {
	m.forget(key)
	l := m.lane(key.Group)
	m.known[key], l.known = result, append(l.known, key)
	if len(l.known) > journalKept {
		m.forget(l.known[0])
	}
}

func (m *Machine) forget(key Key) {
	l := m.lane(key.Group)
	delete(m.known, key)
	l.known = slices.DeleteFunc(l.known, func(k Key) bool { return k == key })
}

// Step takes an event in.
func (m *Machine) Step(event Event) Effects {
	var out Effects
	switch e := event.(type) {
	case Offered:
		m.offered(e.Tasks, &out)
	case Finished:
		m.finished(e.Result, &out)
	case Refused:
		m.refused(e.Entry)
	case Retry:
		out.Save = append(out.Save, m.unsaved...)
		m.unsaved = nil
	}
	return out
}

func (m *Machine) offered(tasks []*writv1.Task, out *Effects) {
	tasks = slices.Clone(tasks)
	slices.SortStableFunc(tasks, func(a, b *writv1.Task) int {
		return cmp.Or(cmp.Compare(a.GetGroup(), b.GetGroup()), cmp.Compare(a.GetEpoch(), b.GetEpoch()),
			cmp.Compare(a.GetTerm(), b.GetTerm()), cmp.Compare(a.GetStep(), b.GetStep()))
	})
	fresh := make(map[string]bool)
	for _, t := range tasks {
		key, l := keyOf(t), m.lane(t.GetGroup())
		result, known := m.known[key]
		running := l.running != nil && keyOf(l.running) == key
		waiting := slices.ContainsFunc(l.next, func(w *writv1.Task) bool { return keyOf(w) == key })
		switch {
		case !l.notice(orderOf(t)):
		case running, waiting, slices.ContainsFunc(m.unsaved, func(e Entry) bool { return e.Key == key }):
		case known && result != nil:
			out.Report = append(out.Report, result)
		default:
			l.next = append(l.next, t)
			fresh[t.GetGroup()] = true
		}
	}
	for _, group := range slices.Sorted(maps.Keys(fresh)) {
		l := m.groups[group]
		// What waits and is not asked for any more is not begun.
		l.next = slices.DeleteFunc(l.next, func(w *writv1.Task) bool { return !offers(tasks, w) })
		if l.running != nil && !l.ended && !offers(tasks, l.running) {
			l.ended = true
			out.Cancel = append(out.Cancel, keyOf(l.running))
		}
		m.begin(l, out)
	}
}

// offers reports whether a task is among those of an answer.
func offers(tasks []*writv1.Task, task *writv1.Task) bool {
	return slices.ContainsFunc(tasks, func(t *writv1.Task) bool { return keyOf(t) == keyOf(task) })
}

// begin starts what waits if nothing runs.
func (m *Machine) begin(l *lane, out *Effects) {
	if l.running != nil || len(l.next) == 0 {
		return
	}
	l.running, l.next, l.ended = l.next[0], l.next[1:], false
	_, known := m.known[keyOf(l.running)]
	out.Begin = append(out.Begin, Begin{Task: l.running, Restarted: known})
}

func (m *Machine) finished(result *writv1.TaskResult, out *Effects) {
	l := m.lane(result.GetGroup())
	if l.running == nil {
		panic("agent: a hook has finished that was not started")
	}
	key := keyOf(l.running)
	result = proto.CloneOf(result)
	result.Promotion, result.Step, result.Kind = key.Promotion, key.Step, key.Kind
	entry := Entry{Key: key, Order: orderOf(l.running), Result: result}
	// A hook that does not exist has not run, and may exist after the next start.
	if result.GetOutcome() == writv1.HookOutcome_HOOK_OUTCOME_NONE {
		m.forget(key)
		out.Report = append(out.Report, result)
	} else {
		m.remember(key, result)
		out.Save = append(out.Save, entry)
	}
	l.running = nil
	m.begin(l, out)
}

// refused takes back what the journal did not take.
func (m *Machine) refused(e Entry) {
	if e.Result != nil {
		m.unsaved = append(m.unsaved, e)
		return
	}
	l := m.lane(e.Key.Group)
	if l.running != nil && keyOf(l.running) == e.Key {
		// It is offered again, and may work then.
		l.running, l.next = nil, nil
	}
}

// Running tells which tasks run, by group.
func (m *Machine) Running() []Key {
	var keys []Key
	for _, group := range slices.Sorted(maps.Keys(m.groups)) {
		if l := m.groups[group]; l.running != nil {
			keys = append(keys, keyOf(l.running))
		}
	}
	return keys
}

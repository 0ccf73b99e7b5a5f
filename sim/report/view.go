package report

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/sim/trace"
)

// view is what the page is given: as a trace, but in fewer letters, as there may be tens of thousands of each. Times are
// nanoseconds. The script says what each place of an array is.
type view struct {
	Title      string      `json:"title"`
	Seed       string      `json:"seed"` // 64 bits are too many for a number of JavaScript
	Hash       string      `json:"hash"`
	Command    string      `json:"command"`
	Simulated  int64       `json:"simulated"`
	Broken     []string    `json:"broken"`
	Lanes      []lane      `json:"lanes"`
	BandKinds  []string    `json:"bandKinds"`
	Bands      [][5]any    `json:"bands"` // lane, kind, from, to, text
	Resources  []resource  `json:"resources"`
	EventKinds []string    `json:"eventKinds"`
	Events     [][4]any    `json:"events"` // at, lane, kind, text
	Violations []violation `json:"violations"`
}

type lane struct {
	Name   string `json:"name"`
	Region string `json:"region"`
	Kind   string `json:"kind"`
}

type resource struct {
	Name string `json:"name"`
	// Tokens in rising order. Beliefs and writes name a token by its place here.
	Tokens  []string   `json:"tokens"`
	Beliefs [][4]int64 `json:"beliefs"` // lane, token, from, to
	Writes  [][5]int64 `json:"writes"`  // lane, token, at, accepted, floor or -1
}

type violation struct {
	At        int64  `json:"at"`
	Invariant string `json:"invariant"`
	Text      string `json:"text"`
}

var (
	bandKinds  = []trace.BandKind{trace.BandCoordinator, trace.BandLeader, trace.BandDown, trace.BandPaused, trace.BandCut, trace.BandDisk, trace.BandClock}
	eventKinds = []trace.EventKind{
		trace.EventFault, trace.EventRole, trace.EventRequest, trace.EventAnswer, trace.EventCommit, trace.EventLease,
		trace.EventOperator, trace.EventMark,
	}
)

func newView(t *trace.Trace) view {
	v := view{
		Title: t.Title, Seed: strconv.FormatUint(t.Seed, 10), Hash: t.Hash, Command: t.Command,
		Simulated: int64(extent(t)), Broken: broken(t),
		Lanes: []lane{}, Bands: [][5]any{}, Resources: resourcesOf(t), Events: [][4]any{}, Violations: []violation{},
	}
	for _, l := range t.Lanes {
		v.Lanes = append(v.Lanes, lane{l.Name, l.Region, string(l.Kind)})
	}
	bandIndex, eventIndex := index(bandKinds, &v.BandKinds), index(eventKinds, &v.EventKinds)
	for _, b := range t.Bands {
		v.Bands = append(v.Bands, [5]any{b.Lane, bandIndex(b.Kind), int64(b.From), int64(b.To), b.Text})
	}
	events := slices.Clone(t.Events)
	slices.SortStableFunc(events, func(a, b trace.Event) int { return cmp.Compare(a.At, b.At) })
	for _, e := range events {
		v.Events = append(v.Events, [4]any{int64(e.At), e.Lane, eventIndex(e.Kind), e.Text})
	}
	for _, x := range t.Violations {
		v.Violations = append(v.Violations, violation{int64(x.At), x.Invariant, x.Text})
	}
	return v
}

// index answers the places of kinds, and appends to names what it has not seen yet.
func index[T ~string](known []T, names *[]string) func(T) int {
	places := make(map[T]int)
	add := func(kind T) int {
		if i, ok := places[kind]; ok {
			return i
		}
		places[kind] = len(*names)
		*names = append(*names, string(kind))
		return places[kind]
	}
	for _, kind := range known {
		add(kind)
	}
	return add
}

// broken lists the invariants that do not hold, each once.
func broken(t *trace.Trace) []string {
	names := []string{}
	for _, v := range t.Violations {
		if !slices.Contains(names, v.Invariant) {
			names = append(names, v.Invariant)
		}
	}
	return names
}

// extent is until when there is something to see.
func extent(t *trace.Trace) time.Duration {
	end := max(t.Simulated, time.Second)
	for _, e := range t.Events {
		end = max(end, e.At)
	}
	for _, b := range t.Beliefs {
		end = max(end, min(b.To, t.Simulated+time.Minute))
	}
	return end
}

func resourcesOf(t *trace.Trace) []resource {
	tokens := make(map[string][]uint64)
	for _, b := range t.Beliefs {
		tokens[b.Resource] = append(tokens[b.Resource], b.Token)
	}
	for _, w := range t.Writes {
		tokens[w.Resource] = append(tokens[w.Resource], w.Token)
		if w.Floor != 0 {
			tokens[w.Resource] = append(tokens[w.Resource], w.Floor)
		}
	}
	var names []string
	for name, list := range tokens {
		slices.Sort(list)
		tokens[name] = slices.Compact(list)
		names = append(names, name)
	}
	slices.Sort(names)
	place := func(name string, token uint64) int64 {
		i, found := slices.BinarySearch(tokens[name], token)
		if !found {
			return -1
		}
		return int64(i)
	}
	all := make([]resource, len(names))
	at := make(map[string]*resource)
	for i, name := range names {
		all[i] = resource{Name: name, Tokens: []string{}, Beliefs: [][4]int64{}, Writes: [][5]int64{}}
		for _, token := range tokens[name] {
			all[i].Tokens = append(all[i].Tokens, fence.Token(token).String())
		}
		at[name] = &all[i]
	}
	for _, b := range t.Beliefs {
		r := at[b.Resource]
		r.Beliefs = append(r.Beliefs, [4]int64{int64(b.Lane), place(b.Resource, b.Token), int64(b.From), int64(b.To)})
	}
	for _, w := range t.Writes {
		accepted := int64(0)
		if w.Accepted {
			accepted = 1
		}
		r := at[w.Resource]
		r.Writes = append(r.Writes, [5]int64{int64(w.Lane), place(w.Resource, w.Token), int64(w.At), accepted, place(w.Resource, w.Floor)})
	}
	for i := range all {
		slices.SortStableFunc(all[i].Beliefs, func(a, b [4]int64) int { return cmp.Compare(a[2], b[2]) })
		slices.SortStableFunc(all[i].Writes, func(a, b [5]int64) int { return cmp.Compare(a[2], b[2]) })
	}
	return all
}

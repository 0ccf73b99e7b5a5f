package audit

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/writ-io/writ/fence"
)

// Writable is a grant, or a tenure, that was in force.
type Writable struct {
	// Holder is who had a lease; empty for a tenure, which a region has.
	Holder string
	Region string
	Token  fence.Token
	// From and Until are the wall clocks of the coordinators that granted and ended it; a zero Until: to this day.
	From, Until time.Time
	// Promotion is what a tenure was granted by, and ApprovedBy who signed it; empty: nobody had to.
	Promotion  string
	ApprovedBy []string
}

// Answer is who could write to a resource at an instant.
type Answer struct {
	// Writable is empty where nobody could; more than one around a change that clocks leave in doubt.
	Writable []Writable
	// Records is what the answer rests on, by sequence.
	Records []uint64
	// Caveats is what the answer does not know.
	Caveats []string
}

// Who answers which grants and tenures of a resource were in force at an instant. Records are those of one chain, in order;
// pruned is the newest record that is missing at its beginning.
//
// What counts is the order of records. Their times are wall clocks of several coordinators, which may go back from one record
// to the next: what was in force on either side is then answered, and a caveat says so.
func Who(resource string, at time.Time, pruned uint64, records iter.Seq[Record]) Answer {
	w := newWho(resource, at)
	for r := range records {
		w.add(r)
	}
	return w.answer(pruned)
}

// Concerns says whether Who looks at a record when it is asked for that resource.
func Concerns(r Record, resource string) bool {
	switch r.Action {
	case ActionGrant, ActionEnd, ActionTenureGrant, ActionTenureFence, ActionTenureEnd, ActionForceRelease:
		return r.Target == resource
	case ActionGuardRule:
		return covers(r.Target, resource)
	case ActionForeignState, ActionRaiseEpoch, ActionRecovered, ActionApprove, ActionWithdraw:
		return true
	}
	return false
}

// hold is a grant with the records that tell of it.
type hold struct {
	Writable
	records []uint64
	proofs  string
	forced  bool
	hits    bool // it was in force at the instant asked for
	end     string
}

// who walks over the records. Between two of them the state is that after the first: it counts if the instant asked for lies
// between their times, whichever is later.
type who struct {
	resource string
	at       time.Time
	now      *hold // in force
	last     *hold // ended last
	all      []*hold
	approved map[string][]string
	rules    map[string]string // isolation by prefix
	rests    []uint64          // rebuilds of the quorum that leave the instant in doubt
	sane     time.Time         // of the last record before a rebuild
	caveats  []string

	any     bool // there is a grant of the resource at all
	started bool
	time    time.Time // of the newest record
	seq     uint64
	gap     *hold // ended last before the instant, when nobody had it
	gapNext time.Time
	inGap   bool
}

func newWho(resource string, at time.Time) *who {
	return &who{resource: resource, at: at, approved: map[string][]string{}, rules: map[string]string{}}
}

func (w *who) add(r Record) {
	if !Concerns(r, w.resource) {
		return
	}
	w.between(r)
	switch r.Action {
	case ActionGrant, ActionTenureGrant:
		w.any = true
		w.grant(r)
	case ActionEnd, ActionTenureEnd, ActionTenureFence:
		w.any = true
		w.ended(r)
	case ActionForceRelease:
		if w.now != nil && r.Detail["now"] == "true" {
			w.now.forced = true
			w.now.records = append(w.now.records, r.Sequence)
		}
	case ActionGuardRule:
		w.rules[r.Target] = r.Detail["isolation"]
		if r.Detail["isolation"] == "none" {
			delete(w.rules, r.Target)
		}
	case ActionForeignState:
		w.sane = w.time
	case ActionRaiseEpoch:
		w.raiseEpoch(r)
	case ActionApprove:
		w.approved[r.Target] = append(w.approved[r.Target], r.Detail[detailApprover])
	case ActionWithdraw:
		w.approved[r.Target] = slices.DeleteFunc(slices.Clone(w.approved[r.Target]), func(name string) bool { return name == r.Detail[detailApprover] })
	}
	w.time, w.seq, w.started = r.At, r.Sequence, true
}

// between looks whether the instant lies between the newest record and the next one.
func (w *who) between(next Record) {
	if !w.started {
		return
	}
	from, until := w.time, next.At
	if until.Before(from) {
		from, until = until, from
		if !w.at.Before(from) && !w.at.After(until) {
			w.caveats = append(w.caveats, fmt.Sprintf(
				"the time of record %d is %v before that of record %d: the clocks of two coordinators differ, and what was in force on either side is answered",
				next.Sequence, until.Sub(from).Round(time.Millisecond), w.seq))
			w.hit(next.At)
		}
		return
	}
	if !w.at.Before(from) && w.at.Before(until) {
		w.hit(next.At)
	}
}

// hit notes what is in force as part of the answer.
func (w *who) hit(next time.Time) {
	if w.now != nil {
		w.now.hits = true
	} else {
		w.inGap, w.gap, w.gapNext = true, w.last, next
	}
	longest, isolation := -1, ""
	for prefix, how := range w.rules { // of those that cover the resource one has that length
		if len(prefix) > longest {
			longest, isolation = len(prefix), how
		}
	}
	if strings.HasSuffix(isolation, "OPEN") {
		w.caveats = append(w.caveats, "the rule for the resource lets guards without contact go on comparing tokens: one that had not heard of a newer token may have admitted an older one")
	}
}

func (w *who) grant(r Record) {
	if w.now != nil { // its end is not told: the next grant is one
		w.close(r, "the next grant")
	}
	h := &hold{
		Writable: Writable{
			Holder: r.Detail[detailHolder], Region: r.Detail[detailRegion], Token: tokenOf(r, detailToken),
			From: r.At, Promotion: r.Detail[detailPromotion],
		},
		records: []uint64{r.Sequence}, proofs: r.Detail[detailProofs],
	}
	if h.Promotion != "" {
		h.ApprovedBy = slices.Compact(slices.Sorted(slices.Values(w.approved[h.Promotion])))
	}
	w.now = h
	w.all = append(w.all, h)
}

// ended closes the grant in force, if the record is about it.
func (w *who) ended(r Record) {
	name := detailToken
	if r.Action == ActionTenureFence {
		name = detailOldToken
	}
	if token := tokenOf(r, name); w.now == nil || (token != 0 && token != w.now.Token) {
		return
	}
	how := r.Detail[detailHow]
	if r.Action == ActionTenureFence {
		how = "fenced"
	}
	w.close(r, how)
}

func (w *who) close(r Record, how string) {
	w.now.Until, w.now.end = r.At, how
	w.now.records = append(w.now.records, r.Sequence)
	w.last, w.now = w.now, nil
}

// raiseEpoch ends what was granted under an older epoch.
func (w *who) raiseEpoch(r Record) {
	if !w.at.Before(w.sane) && w.at.Before(r.At) {
		w.rests = append(w.rests, r.Sequence)
	}
	if w.now != nil {
		w.close(r, "the quorum was rebuilt")
	}
}

func (w *who) answer(pruned uint64) Answer {
	var out Answer
	if w.started && !w.at.Before(w.time) {
		w.hit(time.Time{}) // after the newest record
	}
	for _, h := range w.all {
		if !h.hits {
			continue
		}
		out.Writable = append(out.Writable, h.Writable)
		out.Records = append(out.Records, h.records...)
		w.doubts(h)
	}
	if w.inGap {
		w.doubtGap(&out)
	}
	w.doubtHistory(&out, pruned)
	slices.Sort(out.Records)
	out.Records = slices.Compact(out.Records)
	for _, c := range w.caveats {
		if !slices.Contains(out.Caveats, c) {
			out.Caveats = append(out.Caveats, c)
		}
	}
	return out
}

// doubts notes what a grant itself leaves open.
func (w *who) doubts(h *hold) {
	if h.forced {
		w.caveats = append(w.caveats, fmt.Sprintf(
			"token %v was taken away at once: until its deadline its holder may have believed that it held the resource, while guards refused it", h.Token))
	}
	for proof := range strings.FieldsSeq(h.proofs) {
		guard, how, _ := strings.Cut(proof, "=")
		switch how {
		case "unproven":
			w.caveats = append(w.caveats, fmt.Sprintf(
				"token %v was granted though guard %s had not been proved to refuse what is older: it may have admitted an older token", h.Token, guard))
		case "attested":
			w.caveats = append(w.caveats, fmt.Sprintf("that guard %s refuses what is older than token %v is the word of people, not its own", guard, h.Token))
		}
	}
}

// doubtGap says what guards may have done while nobody had the resource.
func (w *who) doubtGap(out *Answer) {
	if w.gap == nil {
		return
	}
	out.Records = append(out.Records, w.gap.records...)
	until := "when the next token was granted"
	if !w.gapNext.IsZero() {
		until = "when the next record of the resource says so"
	}
	w.caveats = append(w.caveats, fmt.Sprintf(
		"token %v had ended (%s) and no other had been granted: a guard that had not been raised yet may have admitted it still, at the latest until %s",
		w.gap.Token, w.gap.end, until))
}

// doubtHistory says what the log does not have.
func (w *who) doubtHistory(out *Answer, pruned uint64) {
	out.Records = append(out.Records, w.rests...)
	if len(w.rests) > 0 {
		w.caveats = append(w.caveats, fmt.Sprintf(
			"the quorum was rebuilt (record %d): what happened between the backup and then is not in this log", w.rests[len(w.rests)-1]))
	}
	if pruned > 0 {
		w.caveats = append(w.caveats, fmt.Sprintf(
			"records up to %d have been pruned: a grant from before that has not changed since is not found here, look into the exported bundle", pruned))
	}
	if !w.any {
		w.caveats = append(w.caveats, "the log has no grant of this resource: grants are recorded for guarded resources and for tenures only")
	}
}

func tokenOf(r Record, name string) fence.Token {
	n, err := strconv.ParseInt(r.Detail[name], 10, 64)
	if token := fence.Token(n); err == nil && token.Valid() {
		return token
	}
	return 0
}

// Caveat is all caveats in one text; empty: there is none.
func (a Answer) Caveat() string { return strings.Join(a.Caveats, "; ") }

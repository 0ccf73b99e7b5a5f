package cli

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/singleton"
	"github.com/writ-io/writ/singleton/cron"
)

// How jobs are shown.

// jobView is a job for machines.
type jobView struct {
	Name    string       `json:"name"`
	Spec    string       `json:"spec,omitempty"`
	Zone    string       `json:"zone,omitempty"`
	State   string       `json:"state"` // free, held, …, as of the lease
	Holder  string       `json:"holder,omitempty"`
	Token   string       `json:"token,omitempty"`
	Paused  *pauseView   `json:"paused,omitempty"`
	Running *recordView  `json:"running,omitempty"`
	Waiting []time.Time  `json:"waiting,omitempty"`
	Next    []time.Time  `json:"next,omitempty"`
	Last    *recordView  `json:"last,omitempty"`
	History []recordView `json:"history,omitempty"`
	Problem string       `json:"problem,omitempty"`
}

type pauseView struct {
	Note string    `json:"note,omitempty"`
	By   string    `json:"by,omitempty"`
	At   time.Time `json:"at"`
}

// recordView is a run, or what became of a slot, for machines.
type recordView struct {
	ID        string     `json:"id,omitempty"`
	Slot      time.Time  `json:"slot"`
	Last      *time.Time `json:"last,omitempty"`
	Count     int        `json:"count,omitempty"`
	Outcome   string     `json:"outcome,omitempty"`
	Reason    string     `json:"reason,omitempty"`
	Manual    bool       `json:"manual,omitempty"`
	By        string     `json:"by,omitempty"`
	Attempt   int        `json:"attempt,omitempty"`
	StartedAt *time.Time `json:"startedAt,omitempty"`
	Duration  string     `json:"duration,omitempty"`
	Holder    string     `json:"holder,omitempty"`
	Token     string     `json:"token,omitempty"`
}

func viewJob(job singleton.JobInfo) jobView {
	v := jobView{
		Name: job.Name, Spec: job.State.Spec, Zone: job.State.Zone, State: job.Lease.State.String(), Token: decimal(uint64(job.Lease.Token)),
		Next: job.Next, History: viewRecords(job.State),
	}
	if job.Lease.State != lease.Free {
		v.Holder = job.Lease.Holder.String()
	}
	if p := job.Control.Pause; p != nil {
		v.Paused = &pauseView{p.Note, p.By, p.At}
	}
	zone := zoneOf(job.State)
	if r := job.State.Running; r != nil {
		running := viewRecord(claimed(*r), zone)
		v.Running = &running
	}
	for _, slot := range job.State.Backlog {
		v.Waiting = append(v.Waiting, slot.At.In(zone))
	}
	if n := len(v.History); n > 0 {
		v.Last = &v.History[n-1]
	}
	if job.Problem != nil {
		v.Problem = job.Problem.Error()
	}
	return v
}

// claimed is a run as a record that has no outcome yet.
func claimed(c cron.Claim) cron.Record {
	return cron.Record{
		ID: c.ID, Slot: c.Slot, Manual: c.Manual, By: c.By, Attempt: c.Attempt, StartedAt: &c.ClaimedAt, Holder: c.Holder, Token: c.Token,
	}
}

func viewRecords(state cron.State) []recordView {
	views := make([]recordView, len(state.History))
	for i, r := range state.History {
		views[i] = viewRecord(r, zoneOf(state))
	}
	return views
}

func viewRecord(r cron.Record, zone *time.Location) recordView {
	v := recordView{
		ID: r.ID, Slot: r.Slot.In(zone), Count: r.Count, Outcome: string(r.Outcome), Reason: r.Reason, Manual: r.Manual, By: r.By,
		Attempt: r.Attempt, StartedAt: r.StartedAt, Holder: r.Holder, Token: decimal(r.Token),
	}
	if r.Last != nil {
		last := r.Last.In(zone)
		v.Last = &last
	}
	if r.Outcome != "" && r.Outcome != cron.Skipped {
		v.Duration = strconv.FormatFloat(float64(r.DurationMs)/1000, 'f', 3, 64) + "s"
	}
	return v
}

func decimal(token uint64) string {
	if token == 0 {
		return ""
	}
	return strconv.FormatUint(token, 10)
}

// zoneOf is the zone in which a job is shown: its own, UTC if this machine does not know it.
func zoneOf(state cron.State) *time.Location {
	if zone, err := time.LoadLocation(state.Zone); err == nil {
		return zone
	}
	return time.UTC
}

// recordKey tells records of one history apart.
type recordKey struct {
	id      string
	slot    time.Time
	outcome cron.Outcome
	count   int
}

func keyOf(r cron.Record) recordKey { return recordKey{r.ID, r.Slot.UTC(), r.Outcome, r.Count} }

const slotForm = "2006-01-02 15:04:05 MST"

func slotText(at time.Time, zone *time.Location) string { return at.In(zone).Format(slotForm) }

func (a *app) printJobs(w io.Writer, jobs []singleton.JobInfo) {
	var rows [][]cell
	for _, job := range jobs {
		next, last := "", cell{}
		if len(job.Next) > 0 {
			next = slotText(job.Next[0], zoneOf(job.State))
		}
		if n := len(job.State.History); n > 0 {
			last = jobOutcome(job.State.History[n-1].Outcome)
		}
		holder := ""
		if job.Lease.State != lease.Free {
			holder = oneLine(job.Lease.Holder.String())
		}
		rows = append(rows, []cell{text(oneLine(job.Name)), jobState(job), text(oneLine(job.State.Spec)), text(next), last, text(holder)})
	}
	a.columns(w, []string{"JOB", "STATE", "SPEC", "NEXT", "LAST", "HOLDER"}, rows)
}

// jobState says first what somebody would want to do something about.
func jobState(job singleton.JobInfo) cell {
	switch {
	case job.Problem != nil:
		return cell{"unreadable", bad}
	case job.Control.Pause != nil:
		return cell{"paused", weak}
	case job.Lease.State == lease.Free || job.Lease.State == lease.Fencing:
		return cell{"nowhere", bad}
	case job.State.Running != nil:
		return cell{"running", good}
	}
	return cell{"waiting", plain}
}

func (a *app) printJob(w io.Writer, job singleton.JobInfo) {
	zone := zoneOf(job.State)
	var paused, running, problem string
	if p := job.Control.Pause; p != nil {
		paused = fmt.Sprintf("%s by %s: %s", slotText(p.At, zone), oneLine(p.By), cmp.Or(oneLine(p.Note), "no note"))
	}
	if r := job.State.Running; r != nil {
		running = fmt.Sprintf("%s, attempt %d, since %s", slotText(r.Slot, zone), r.Attempt, slotText(r.ClaimedAt, zone))
		if r.Manual {
			running += ", triggered by " + oneLine(r.By)
		}
	}
	if job.Problem != nil {
		problem = oneLine(job.Problem.Error())
	}
	lines := []pair{
		{"job", text(oneLine(job.Name))}, {"state", jobState(job)}, {"problem", cell{problem, bad}},
		{"spec", text(oneLine(job.State.Spec))}, {"zone", text(oneLine(job.State.Zone))}, {"policy", text(policyText(job.State.Policy))},
		{"paused", cell{paused, weak}}, {"running", text(running)},
	}
	if job.Lease.State == lease.Held || job.Lease.State == lease.Ending {
		lines = append(lines, pair{"holder", text(oneLine(job.Lease.Holder.String()))})
	}
	lines = append(lines, pair{"token", text(bothTokens(uint64(job.Lease.Token), job.Lease.Token.String()))})
	for _, slot := range job.State.Backlog {
		lines = append(lines, pair{"due", text(slotText(slot.At, zone))})
	}
	for _, slot := range job.Next {
		lines = append(lines, pair{"next", text(slotText(slot, zone))})
	}
	if n := len(job.State.History); n > 0 {
		lines = append(lines, pair{"last", text(recordLine(job.State.History[n-1], zone))})
	}
	a.pairs(w, lines...)
}

func policyText(p cron.Policy) string {
	words := []string{}
	add := func(name string, value any, show bool) {
		if show {
			words = append(words, fmt.Sprintf("%s %v", name, value))
		}
	}
	add("catch up", p.CatchUp, p.CatchUp != "")
	add("within", p.Window, p.Window > 0)
	add("at most", p.Max, p.Max > 0)
	add("overlap", p.Overlap, p.Overlap != "")
	add("jitter", p.Jitter, p.Jitter > 0)
	add("attempts", p.MaxAttempts, p.MaxAttempts > 0)
	return oneLine(strings.Join(words, ", "))
}

func jobOutcome(o cron.Outcome) cell {
	switch o {
	case cron.Done:
		return cell{string(o), good}
	case cron.Skipped, cron.Cancelled:
		return cell{string(o), weak}
	default:
		return cell{oneLine(string(o)), bad}
	}
}

func (a *app) printRecords(w io.Writer, state cron.State) {
	zone := zoneOf(state)
	var rows [][]cell
	for _, r := range state.History {
		rows = append(rows, []cell{
			text(slotText(r.Slot, zone)), jobOutcome(r.Outcome), text(attemptText(r)), text(tookText(r)), text(oneLine(r.Holder)),
			text(runToken(r)), text(reasonText(r, zone)),
		})
	}
	a.columns(w, []string{"SLOT", "OUTCOME", "ATTEMPT", "TOOK", "HOLDER", "TOKEN", "REASON"}, rows)
}

func attemptText(r cron.Record) string {
	if r.Attempt == 0 {
		return ""
	}
	return strconv.Itoa(r.Attempt)
}

func tookText(r cron.Record) string {
	if r.StartedAt == nil {
		return ""
	}
	return span(time.Duration(r.DurationMs) * time.Millisecond)
}

func runToken(r cron.Record) string {
	if r.Token == 0 {
		return ""
	}
	return fence.Token(r.Token).String()
}

// reasonText says why, of how many slots, and who wanted a run.
func reasonText(r cron.Record, zone *time.Location) string {
	reason := oneLine(r.Reason)
	if r.Manual {
		reason = strings.TrimPrefix(reason+"; triggered by "+oneLine(r.By), "; ")
	}
	if r.Count > 1 && r.Last != nil {
		reason += fmt.Sprintf(" (%d slots, the last at %s)", r.Count, slotText(*r.Last, zone))
	}
	return reason
}

// recordLine is a record in one line.
func recordLine(r cron.Record, zone *time.Location) string {
	line := fmt.Sprintf("%s  %s", slotText(r.Slot, zone), oneLine(string(r.Outcome)))
	for _, more := range []string{tookText(r), runToken(r), oneLine(r.Holder), reasonText(r, zone)} {
		if more != "" {
			line += "  " + more
		}
	}
	return line
}

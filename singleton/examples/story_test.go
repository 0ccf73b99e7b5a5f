//go:build linux

package examples_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/jepsen/cluster"
)

// example is a program and how to see what it does.
type example struct {
	name string
	args []string
	// fenced are the kinds of its writes. The process that does the first is the one that is killed.
	fenced []fenced
	// nudge gives it something to do; the i-th time it is called.
	nudge func(s *stage, i int)
	// done tells whether all that there is to do is done.
	done func(s *stage) bool
	// check looks, when all have ended, whether everything was done, and once.
	check func(s *stage)
}

// fenced is a table with a column token, and the resource under whose tokens it is written. The first table that a
// transaction writes to is another one, if gate is not empty.
type fenced struct{ resource, table, gate string }

// first is the table before which a transaction can be held up, so that the fence has not let it in yet.
func (f fenced) first() string { return cmp.Or(f.gate, f.table) }

// What is in the logs: lines of the programs, and marks of the stage.
const (
	begins  = "work begins"
	ends    = "work ends"
	killed  = "killed"
	paused  = "paused"
	resumed = "resumed"
)

type line struct {
	Time     time.Time   `json:"time"`
	Msg      string      `json:"msg"`
	Resource string      `json:"resource,omitempty"`
	Token    fence.Token `json:"token,omitempty"`
	Error    string      `json:"error,omitempty"`
	Cause    string      `json:"cause,omitempty"`
}

// tell plays the whole story of an example: it is handed over, killed, and paused while it writes.
func tell(t *testing.T, e example) {
	t.Parallel()
	p := &play{stage: newStage(t, e.name), example: e}
	var tables []string
	for _, f := range e.fenced {
		tables = append(tables, f.first())
	}
	p.gates(tables...)
	regions := cluster.Regions[:]

	// With a TTL this long, nobody takes over soon but from one that has released.
	const long = time.Minute
	p.start(append(e.args, "-ttl="+long.String()), regions...)
	first := p.worker(e.fenced[0], 0)
	asked := time.Now()
	p.stop(first.region)
	next := p.worker(e.fenced[0], first.token)
	took := time.Since(asked)
	t.Logf("%s was stopped by SIGTERM; %s works %v after", first.region, next.region, took)
	if took >= long {
		t.Errorf("%s has worked only when the lease of %s had run out", next.region, first.region)
	}
	for region := range p.programs {
		p.stop(region)
	}

	const ttl = 3 * time.Second
	short := append(e.args, "-ttl="+ttl.String())
	p.start(short, regions...)
	dead := p.worker(e.fenced[0], next.token)
	struck := time.Now()
	p.kill(dead.region)
	next = p.worker(e.fenced[0], dead.token)
	t.Logf("%s was killed; %s works %v after, with a TTL of %v", dead.region, next.region, time.Since(struck), ttl)
	p.start(short, dead.region)

	for _, f := range e.fenced {
		p.zombie(f)
	}
	p.nudge()
	p.await("end of the work", func() bool { return e.done(p.stage) })
	for region := range p.programs {
		p.stop(region)
	}
	p.judge()
	e.check(p.stage)
	if t.Failed() {
		t.Log(p.logs())
	}
}

// play is a story that is being played.
type play struct {
	*stage
	example
	nudges int
}

func (p *play) nudge() {
	p.example.nudge(p.stage, p.nudges)
	p.nudges++
}

// worker is a process whose write under a token is in the database.
type worker struct {
	region string
	token  fence.Token
}

// worker gives something to do and waits until one has done it under a token newer than after.
func (p *play) worker(f fenced, after fence.Token) (w worker) {
	p.t.Helper()
	before := p.number("SELECT count(*) FROM " + f.table)
	p.nudge()
	p.await("write to "+f.table+" under a token newer than "+after.String(), func() bool {
		w.token = fence.Token(p.number("SELECT max(token) FROM " + f.table))
		return w.token > after && p.number("SELECT count(*) FROM "+f.table) > before
	})
	w.region = p.whose(f.resource, w.token)
	return w
}

// whose returns the region of the process that has begun to work under a token.
func (p *play) whose(resource string, token fence.Token) string {
	p.t.Helper()
	for _, region := range cluster.Regions {
		for _, l := range p.lines(region) {
			if l.Msg == begins && l.Resource == resource && l.Token == token {
				return region
			}
		}
	}
	p.t.Fatalf("nobody has logged that it works on %s under %v\n%s", resource, token, p.logs())
	return ""
}

// zombie pauses the process that works just as it writes, until another has taken over. What it writes has to be refused.
func (p *play) zombie(f fenced) {
	p.t.Helper()
	for range 5 {
		if p.tryZombie(f) {
			return
		}
		p.t.Logf("the process that wrote to %s had lost its lease before it was paused; once more", f.table)
	}
	p.t.Fatalf("no process could be paused while it held %s", f.resource)
}

// tryZombie returns false if the process has found its lease lost before it was paused, as happens on a machine that is too
// busy.
func (p *play) tryZombie(f fenced) bool {
	p.t.Helper()
	w := p.worker(f, 0)
	open := p.closeGate(w.region, f.first())
	p.nudge()
	var pid int64
	p.await("write that is held up, or by another process", func() bool {
		pid = p.atGate(w.region)
		return pid != 0 || fence.Token(p.number("SELECT max(token) FROM "+f.table)) > w.token
	})
	if pid == 0 {
		open()
		return false
	}
	p.pause(w.region)
	stopped := time.Now()
	next := p.worker(f, w.token)
	p.t.Logf("%s was paused as it wrote to %s; %s works %v after", w.region, f.table, next.region, time.Since(stopped))
	held := p.atGate(w.region) == pid // and not given up by the process
	before := p.number("SELECT count(*) FROM "+f.table+" WHERE token = $1", w.token)
	admitted := p.admitted()
	open() // and the late write arrives, though its process sleeps
	if held {
		p.awaitRefusal(w, f, pid)
	}
	if p.admitted() != admitted {
		p.t.Errorf("the fence of %s let the late write of %s in", f.first(), w.region)
	}
	p.resume(w.region)
	p.await("end of the paused process's term", func() bool {
		return slices.ContainsFunc(p.lines(w.region), func(l line) bool {
			return l.Msg == ends && l.Resource == f.resource && l.Token == w.token
		})
	})
	if after := p.number("SELECT count(*) FROM "+f.table+" WHERE token = $1", w.token); after != before {
		p.t.Errorf("%s wrote to %s %d times after another had taken over", w.region, f.table, after-before)
	}
	for _, l := range p.lines(w.region) {
		if l.Error != "" && l.Token == w.token && l.Resource == f.resource {
			p.t.Logf("%s, when it went on, was told: %s", w.region, l.Error)
		}
	}
	return held
}

// awaitRefusal waits until the database has decided on a write that it was given before its process was paused.
func (p *play) awaitRefusal(w worker, f fenced, pid int64) {
	p.t.Helper()
	var state string
	p.await("end of the write that was held up", func() bool {
		if p.atGate(w.region) != 0 {
			return false
		}
		if err := p.db.QueryRow(p.t.Context(), "SELECT state FROM pg_stat_activity WHERE pid = $1", pid).Scan(&state); err != nil {
			p.t.Fatal(err)
		}
		return state != "active"
	})
	if state != "idle in transaction (aborted)" {
		p.t.Errorf("the late write of %s to %s was not refused: its transaction is %s", w.region, f.table, state)
	}
}

// lines reads a program's log. A line that is not whole yet is left out.
func (p *play) lines(region string) []line {
	p.t.Helper()
	data, err := os.ReadFile(p.log(region))
	if err != nil {
		p.t.Fatal(err)
	}
	var all []line
	for text := range bytes.Lines(data) {
		if text[len(text)-1] != '\n' || !bytes.HasPrefix(text, []byte("{")) {
			continue
		}
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			p.t.Fatalf("%v: %s", err, text)
		}
		all = append(all, l)
	}
	return all
}

// span is for how long a process has worked under one token.
type span struct {
	region     string
	token      fence.Token
	begun, end time.Time
	lost       bool // the process found its lease lost, though nobody had stopped it: it was starved
}

// judge looks whether two processes ever worked on one resource at a time. All clocks are that of this machine.
func (p *play) judge() {
	p.t.Helper()
	spans := make(map[string][]span)
	for _, region := range cluster.Regions {
		for resource, worked := range spansOf(region, p.lines(region)) {
			spans[resource] = append(spans[resource], worked...)
		}
	}
	for i, f := range p.fenced {
		if least := []int{5, 2}[i]; len(spans[f.resource]) < least {
			p.t.Errorf("%d spans of work on %s are in the logs", len(spans[f.resource]), f.resource)
		}
	}
	for resource, worked := range spans {
		for _, problem := range overlaps(worked) {
			p.t.Errorf("%s: %s", resource, problem)
		}
	}
}

// spansOf reads from the log of one process, by resource, when it worked. A process that is stopped does not.
func spansOf(region string, lines []line) map[string][]span {
	spans := make(map[string][]span)
	open := make(map[string]span) // by resource
	var stopped time.Time
	closeSpan := func(resource string, at time.Time, cause string) {
		s, working := open[resource]
		if !working {
			return
		}
		s.end, s.lost = at, strings.Contains(cause, "lost") || strings.Contains(cause, "expired")
		delete(open, resource)
		spans[resource] = append(spans[resource], s)
	}
	for _, l := range lines {
		switch l.Msg {
		case begins:
			open[l.Resource] = span{region: region, token: l.Token, begun: l.Time}
		case ends:
			closeSpan(l.Resource, l.Time, l.Cause)
		case killed:
			for resource := range open {
				closeSpan(resource, l.Time, "")
			}
		case paused:
			stopped = l.Time
		case resumed: // what it goes on with then is a zombie's work, which the database refuses
			for resource := range open {
				closeSpan(resource, stopped, "")
			}
		}
	}
	return spans
}

// overlaps tells of spans that are not one after the other, in the order of their tokens.
func overlaps(spans []span) (problems []string) {
	slices.SortFunc(spans, func(a, b span) int { return a.begun.Compare(b.begun) })
	for i := 1; i < len(spans); i++ {
		a, b := spans[i-1], spans[i]
		if b.token < a.token {
			problems = append(problems, b.region+" began under "+b.token.String()+" after "+a.region+" under "+a.token.String())
		}
		if b.begun.Before(a.end) && !a.lost {
			problems = append(problems, b.region+" began "+a.end.Sub(b.begun).String()+" before "+a.region+" had ended")
		}
	}
	return problems
}

// The judge sees work that overlaps, and lets pass what does not.
func TestOverlaps(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	log := func(entries ...any) (lines []line) {
		for i := 0; i < len(entries); i += 3 {
			token, _ := strconv.Atoi(entries[i+2].(string))
			lines = append(lines, line{Time: at(entries[i].(int)), Msg: entries[i+1].(string), Resource: "r", Token: fence.Token(token)})
		}
		return lines
	}
	for name, c := range map[string]struct {
		a, b []line
		want int
	}{
		"one after the other": {a: log(1, begins, "1", 2, ends, "1"), b: log(3, begins, "2", 4, ends, "2")},
		"both":                {a: log(1, begins, "1", 4, ends, "1"), b: log(3, begins, "2", 5, ends, "2"), want: 1},
		"killed":              {a: log(1, begins, "1", 2, killed, ""), b: log(3, begins, "2", 5, ends, "2")},
		"killed too late":     {a: log(1, begins, "1", 4, killed, ""), b: log(3, begins, "2", 5, ends, "2"), want: 1},
		"paused":              {a: log(1, begins, "1", 2, paused, "", 6, resumed, "", 7, ends, "1"), b: log(3, begins, "2", 5, ends, "2")},
		"paused too late":     {a: log(1, begins, "1", 4, paused, "", 6, resumed, "", 7, ends, "1"), b: log(3, begins, "2", 5, ends, "2"), want: 1},
		"an older token":      {a: log(1, begins, "2", 2, ends, "2"), b: log(3, begins, "1", 4, ends, "1"), want: 1},
	} {
		if got := overlaps(append(spansOf("a", c.a)["r"], spansOf("b", c.b)["r"]...)); len(got) != c.want {
			t.Errorf("%s: found %q", name, got)
		}
	}
}

package gate_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/gate"
	"github.com/writ-io/writ/lease/clock"
)

var rewriteScenarios = flag.Bool("rewrite", false, "write what happened into the scenarios under testdata")

// Scenarios are text: command lines, a line of dashes, and what they printed. A token is a number in the first epoch, W is 5s,
// G is 30s and there is no drift. The commands:
//
//	start [clean] [alwaysclose] [parked=N] [parktime=D] [base=N] [R=N[!]…]
//	                        a process starts with that on its disk; ! says that the floor is drained
//	connect | disconnect | suspect | stop | hurry
//	enrolled [ID] [base=N] [rules=P:close|open[:D],…] [R=N…] [more]
//	contacted [ID] [rules=V/…] [R=N…] [doubted]   an answer to the last request of that kind, or to that of the id: with raises,
//	                        or with what was doubted
//	error ID REASON | noted ID
//	raise R=N…              told
//	persisted | failed      what came of the oldest batch under way
//	write NAME R N [bare]   a write asks to be admitted
//	finished NAME | broken NAME | abandon NAME
//	advance D               let time pass; the shell wakes when asked to
//	show
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/gate/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			d := &driver{t: t, tickets: map[string]gate.Ticket{}}
			got := runScenario(string(text), d.command)
			if *rewriteScenarios {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(text) {
				t.Errorf("%s differs; run the test with -rewrite and review the diff\n%s", file, got)
			}
		})
	}
}

// runScenario carries out each paragraph of commands and returns the text with what they print now. Paragraphs end with
// an empty line; lines that begin with # are prose.
func runScenario(text string, command func(name string, args []string) string) string {
	var out strings.Builder
	skip := false
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "":
			skip = false
			out.WriteString("\n")
		case skip || line == "----":
			skip = true
		case strings.HasPrefix(line, "#"):
			out.WriteString(line + "\n")
		default:
			out.WriteString(line + "\n")
			fields := strings.Fields(line)
			if printed := command(fields[0], fields[1:]); printed != "" {
				out.WriteString("----\n" + printed)
				skip = true
			}
		}
	}
	return out.String()
}

// driver is a shell without disk, network and storage, which are up to the scenario.
type driver struct {
	t        *testing.T
	gate     *gate.Gate
	now      clock.Instant
	wake     clock.Instant
	writing  []gate.Batch
	enrol    uint64 // the last request of each kind
	contact  uint64
	tickets  map[string]gate.Ticket
	printing strings.Builder
}

// options are the arguments of a command.
type options struct {
	t     *testing.T
	plain []string
	named map[string]string
	order []string // of the names
}

func parseOptions(t *testing.T, args []string) options {
	o := options{t: t, named: map[string]string{}}
	for _, arg := range args {
		if key, value, ok := strings.Cut(arg, "="); ok {
			o.named[key] = value
			o.order = append(o.order, key)
		} else {
			o.plain = append(o.plain, arg)
		}
	}
	return o
}

func (o options) has(word string) bool { return slices.Contains(o.plain, word) }

func (o options) duration(key string) time.Duration {
	if o.named[key] == "" {
		return 0
	}
	d, err := time.ParseDuration(o.named[key])
	if err != nil {
		o.t.Fatal(err)
	}
	return d
}

func (o options) token(key string) fence.Token {
	n, err := strconv.ParseUint(strings.TrimSuffix(o.named[key], "!"), 10, 47)
	if err != nil {
		o.t.Fatal(err)
	}
	return tok(n)
}

func (o options) floors() []*writv1.GuardFloor {
	var floors []*writv1.GuardFloor
	for _, key := range o.order {
		if key != "base" && key != "rules" {
			floors = append(floors, &writv1.GuardFloor{Resource: key, Token: uint64(o.token(key))})
		}
	}
	return floors
}

// rules reads VERSION/PREFIX:close|open[:DRAIN],… ; the version is 1 unless given.
func (o options) rules() *writv1.GuardingRecord {
	text, record := o.named["rules"], &writv1.GuardingRecord{Version: 1}
	if text == "" {
		return nil
	}
	if version, rest, ok := strings.Cut(text, "/"); ok {
		if n, err := strconv.ParseUint(version, 10, 64); err == nil {
			record.Version, text = n, rest
		}
	}
	for _, one := range strings.Split(text, ",") {
		fields := strings.Split(one, ":")
		rule := &writv1.GuardingRule{Prefix: fields[0], Isolation: writv1.Isolation_ISOLATION_OPEN}
		if fields[1] == "close" {
			rule.Isolation = writv1.Isolation_ISOLATION_CLOSE
		}
		if len(fields) > 2 {
			d, err := time.ParseDuration(fields[2])
			if err != nil {
				o.t.Fatal(err)
			}
			rule.DrainMs = d.Milliseconds()
		}
		record.Rules = append(record.Rules, rule)
	}
	return record
}

func (d *driver) command(name string, args []string) string {
	d.printing.Reset()
	o := parseOptions(d.t, args)
	switch name {
	case "start":
		d.start(o)
	case "connect":
		d.step(gate.Connected{})
	case "disconnect":
		d.step(gate.Disconnected{})
	case "suspect":
		d.step(gate.Suspicion{})
	case "stop":
		d.step(gate.Stop{})
	case "enrolled", "contacted", "error", "noted", "raise", "hurry":
		d.step(gate.Heard{Message: d.message(name, o)})
	case "persisted", "failed":
		b := d.writing[0]
		d.writing = d.writing[1:]
		event := gate.Persisted{Serial: b.Serial}
		if name == "failed" {
			event.Err = errors.New("disk full")
		}
		d.step(event)
	case "write":
		d.write(o)
	case "finished":
		d.effects(d.gate.Done(d.now, d.tickets[o.plain[0]], fence.Finished))
	case "broken":
		d.effects(d.gate.Done(d.now, d.tickets[o.plain[0]], fence.Broken))
	case "abandon":
		d.step(gate.Abandoned{Ticket: d.tickets[o.plain[0]]})
	case "advance":
		span, err := time.ParseDuration(o.plain[0])
		if err != nil {
			d.t.Fatal(err)
		}
		for end := d.now.Add(span); ; d.step(gate.Tick{}) {
			if d.wake > end {
				d.now = end
				break
			}
			d.now = d.wake
		}
	case "show":
		d.show()
	default:
		d.t.Fatalf("unknown command %q", name)
	}
	return d.printing.String()
}

func (d *driver) start(o options) {
	cfg := config()
	cfg.AlwaysClose = o.has("alwaysclose")
	cfg.MaxParkTime = o.duration("parktime")
	cfg.Enrol.Covers = []string{"*"}
	if o.named["parked"] != "" {
		cfg.MaxParked, _ = strconv.Atoi(o.named["parked"])
	}
	state := gate.State{Store: "store", Clean: o.has("clean")}
	for _, key := range slices.Sorted(slices.Values(o.order)) {
		switch key {
		case "parked", "parktime":
		case "base":
			state.Base = o.token(key)
		default:
			state.Floors = append(state.Floors, gate.Floor{Resource: key, Token: o.token(key), Drained: strings.HasSuffix(o.named[key], "!")})
		}
	}
	d.now = max(d.now, origin)
	d.writing = nil
	var err error
	if d.gate, err = gate.New(cfg, state, d.now); err != nil {
		d.t.Fatal(err)
	}
	d.step(gate.Tick{})
}

func (d *driver) message(name string, o options) *writv1.GuardResponse {
	m := &writv1.GuardResponse{}
	id := map[string]uint64{"enrolled": d.enrol, "contacted": d.contact}[name]
	if len(o.plain) > 0 {
		if n, err := strconv.ParseUint(o.plain[0], 10, 64); err == nil {
			id = n
		}
	}
	m.Id = id
	switch name {
	case "enrolled":
		e := &writv1.GuardEnrolled{Lease: durationpb.New(leaseG), Floors: o.floors(), Rules: o.rules(), More: o.has("more"), Issuer: "quorum"}
		if o.named["base"] != "" {
			e.Base = uint64(o.token("base"))
		}
		m.Say = &writv1.GuardResponse_Enrolled{Enrolled: e}
	case "contacted":
		c := &writv1.GuardContacted{Lease: durationpb.New(leaseG), Rules: o.rules()}
		if c.Raises = o.floors(); o.has("doubted") {
			c.Raises, c.Floors = nil, c.Raises
		}
		m.Say = &writv1.GuardResponse_Contacted{Contacted: c}
	case "error":
		return failure(id, o.plain[1])
	case "noted":
		m.Say = &writv1.GuardResponse_Noted{}
	case "raise":
		m.Say = &writv1.GuardResponse_Raises{Raises: &writv1.GuardRaises{Raises: o.floors()}}
	case "hurry":
		m.Say = &writv1.GuardResponse_Hurry{}
	}
	return m
}

func (d *driver) print(format string, args ...any) {
	fmt.Fprintf(&d.printing, "%v ", d.now.Sub(origin))
	fmt.Fprintf(&d.printing, format+"\n", args...)
}

func (d *driver) write(o options) {
	n, err := strconv.ParseUint(o.plain[2], 10, 47)
	if err != nil {
		d.t.Fatal(err)
	}
	t, answer, err := d.gate.Admit(d.now, o.plain[1], tok(n), !o.has("bare"))
	d.tickets[o.plain[0]] = t
	switch answer {
	case gate.Go:
		d.print("%s goes", o.plain[0])
	case gate.Wait:
		d.print("%s waits", o.plain[0])
	case gate.Refuse:
		d.print("%s is refused: %v", o.plain[0], err)
	}
	if d.gate.Pending() {
		d.effects(d.gate.Take())
	}
}

func (d *driver) name(t gate.Ticket) string {
	for name, other := range d.tickets {
		if other == t {
			return name
		}
	}
	d.t.Fatalf("ticket %d has no name", t)
	return ""
}

func (d *driver) step(e gate.Event) { d.effects(d.gate.Step(d.now, e)) }

// effects prints what the shell is asked to do.
func (d *driver) effects(e *gate.Effects) {
	if e == nil {
		return
	}
	d.wake = e.Wake
	if e.Warning != "" {
		d.print("warning: %s", e.Warning)
	}
	for _, b := range e.Persist {
		d.writing = append(d.writing, b)
		d.print("persist %d: version %d%s", b.Serial, b.Version, describe(b))
	}
	for _, x := range e.Decided {
		if x.Err == nil {
			d.print("%s goes", d.name(x.Ticket))
		} else {
			d.print("%s is refused: %v", d.name(x.Ticket), x.Err)
		}
	}
	for _, t := range e.Cut {
		d.print("cut %s", d.name(t))
	}
	for _, m := range e.Send {
		switch ask := m.GetAsk().(type) {
		case *writv1.GuardRequest_Enrol:
			d.enrol = m.GetId()
			d.print("send %d: enrol, version %d, witnessed %v", m.GetId(), ask.Enrol.GetVersion(), fence.Token(ask.Enrol.GetWitnessed()))
		case *writv1.GuardRequest_Contact:
			d.contact = m.GetId()
			doubts := ""
			if names := ask.Contact.GetDoubts(); len(names) > 0 {
				doubts = ", in doubt: " + strings.Join(names, " ")
			}
			d.print("send %d: contact, rules %d, version %d, alarms %d%s", m.GetId(), ask.Contact.GetRulesVersion(), ask.Contact.GetVersion(), len(ask.Contact.GetAlarms()), doubts)
		case *writv1.GuardRequest_Acks:
			var acks []string
			for _, a := range ask.Acks.GetAcks() {
				acks = append(acks, fmt.Sprintf("%s=%v %s", a.GetResource(), fence.Token(a.GetToken()), strings.TrimPrefix(a.GetProof().String(), "GUARD_PROOF_")))
			}
			d.print("send %d: acks, version %d: %s", m.GetId(), ask.Acks.GetVersion(), strings.Join(acks, ", "))
		case *writv1.GuardRequest_Leave:
			d.print("send %d: leave", m.GetId())
		}
	}
	if e.Reconnect {
		d.print("reconnect")
	}
	if e.Left {
		d.print("left")
	}
}

func describe(b gate.Batch) string {
	var s strings.Builder
	if b.Forget {
		s.WriteString(", forget")
	}
	if b.Base != 0 {
		fmt.Fprintf(&s, ", base %v", b.Base)
	}
	if b.Witnessed != 0 {
		fmt.Fprintf(&s, ", witnessed %v", b.Witnessed)
	}
	for _, f := range b.Floors {
		fmt.Fprintf(&s, ", %s=%v", f.Resource, f.Token)
		if f.Drained {
			s.WriteString(" drained")
		}
	}
	return s.String()
}

func (d *driver) show() {
	s := d.gate.Status()
	at := func(i clock.Instant) string {
		switch i {
		case 0:
			return "none"
		case clock.Never:
			return "never"
		}
		return i.Sub(origin).String()
	}
	fmt.Fprintf(&d.printing, "seeded %v, enrolled %v, store failed %v, deadline %s, wake %s\n", s.Seeded, s.Enrolled, s.StoreFailed, at(s.Deadline), at(d.wake))
	fmt.Fprintf(&d.printing, "version %d, base %v, witnessed %v, in flight %d, parked %d, alarms %d\n", s.Version, s.Base, s.Witnessed, s.InFlight, s.Parked, s.AlarmCount)
	for _, f := range d.gate.Floors() {
		fmt.Fprintf(&d.printing, "%s=%v drained %v\n", f.Resource, f.Token, f.Drained)
	}
}

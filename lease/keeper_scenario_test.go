package lease

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease/clock"
)

var rewriteScenarios = flag.Bool("rewrite", false, "write what happened into the scenarios under testdata")

// Scenarios are text: command lines, a line of dashes, and what they printed. The commands of a keeper scenario:
//
//	config [ppm=N] [margin=D] [renew=N] [spread=N]
//	grant NAMES ttl=D [ago=D] [quiet]
//	                            the leases of NAMES (a,b,c or a..c), whose request was sent a while ago
//	advance D                   let time pass; the shell wakes when asked to, and nobody answers
//	stall D                     let time pass, or go back, while the process is not scheduled
//	run D [rtt=D]               let time pass, and answer every renewal well after a round trip
//	reply N|last [fail] [NAME=REASON…] [contended=NAMES]
//	release NAME | ended NAME=REASON | verify NAME | suspect | forget
//	show                        every lease: until when it is believed, when it is due
func TestKeeperScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/keeper/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			d := &keeperDriver{t: t, cfg: KeeperConfig{Drift: clock.Drift{}}, now: keeperOrigin}
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

const keeperOrigin = clock.Instant(time.Hour)

type keeperDriver struct {
	t        *testing.T
	cfg      KeeperConfig
	keeper   *Keeper
	now      clock.Instant
	wake     clock.Instant
	sent     []Renewal
	answers  []keeperAnswer // of run, in order
	rtt      time.Duration
	names    []string // by id-1
	printing strings.Builder
}

type keeperAnswer struct {
	at      clock.Instant
	renewal Renewal
}

func (d *keeperDriver) command(name string, args []string) string {
	d.printing.Reset()
	options := map[string]string{}
	var plain []string
	for _, arg := range args {
		if key, value, ok := strings.Cut(arg, "="); ok {
			options[key] = value
		} else {
			plain = append(plain, arg)
		}
	}
	if name == "config" {
		d.configure(options)
		return ""
	}
	if d.keeper == nil {
		d.configure(nil)
	}
	switch name {
	case "grant":
		for _, lease := range d.list(plain[0]) {
			d.step(KeeperGranted{
				ID: d.fresh(lease), Ref: Ref{Resource: Resource(lease), Token: fence.Token(1<<48 | len(d.names))},
				TTL: d.duration(options["ttl"]), SentAt: d.now.Add(-d.duration(options["ago"])),
			})
		}
		if slices.Contains(plain, "quiet") {
			return ""
		}
	case "advance":
		d.pass(d.duration(plain[0]))
	case "run":
		d.rtt = max(1, d.duration(options["rtt"]))
		d.pass(d.duration(plain[0]))
		d.rtt = 0
	case "stall":
		d.now = d.now.Add(d.duration(plain[0]))
	case "reply":
		d.reply(plain, options)
	case "release":
		d.step(KeeperReleased{ID: d.id(plain[0])})
	case "ended":
		for name, reason := range options {
			d.step(KeeperEnded{ID: d.id(name), Reason: Reason(reason)})
		}
	case "verify":
		d.step(KeeperVerify{ID: d.id(plain[0])})
	case "suspect":
		d.step(KeeperSuspected{})
	case "forget":
		d.step(KeeperForgotten{})
	case "show":
		d.show()
	default:
		d.t.Fatalf("unknown command %q", name)
	}
	return d.printing.String()
}

func (d *keeperDriver) configure(options map[string]string) {
	number := func(key string) int {
		n, err := strconv.Atoi(cmp.Or(options[key], "0"))
		if err != nil {
			d.t.Fatal(err)
		}
		return n
	}
	d.cfg = KeeperConfig{
		Drift:         clock.Drift{PPM: number("ppm"), Margin: d.duration(options["margin"])},
		RenewPermille: number("renew"), SpreadPermille: number("spread"),
	}
	var err error
	if d.keeper, err = NewKeeper(d.cfg); err != nil {
		d.t.Fatal(err)
	}
}

// pass lets time pass as an ideal shell does: it steps whenever it was asked to and whenever an answer arrives.
func (d *keeperDriver) pass(span time.Duration) {
	end := d.now.Add(span)
	for {
		next := keeperNever
		if d.wake != 0 {
			next = d.wake
		}
		if len(d.answers) > 0 && d.answers[0].at <= next {
			answer := d.answers[0]
			if answer.at > end {
				break
			}
			d.answers = d.answers[1:]
			d.now = answer.at
			d.step(KeeperRenewed{Renewal: answer.renewal})
			continue
		}
		if next > end {
			break
		}
		d.now = max(d.now, next)
		d.step(KeeperTick{})
	}
	d.now = end
}

func (d *keeperDriver) reply(plain []string, options map[string]string) {
	n := len(d.sent)
	if plain[0] != "last" {
		var err error
		if n, err = strconv.Atoi(plain[0]); err != nil {
			d.t.Fatal(err)
		}
	}
	if n > len(d.sent) {
		d.t.Fatalf("renewal %d was never sent; so far:\n%s", n, d.printing.String())
	}
	r := d.sent[n-1]
	event := KeeperRenewed{Renewal: r, Failed: slices.Contains(plain, "fail")}
	for i := range r.Len() {
		name := string(r.Ref(i).Resource)
		if reason := options[name]; reason != "" {
			event.Outcome.Failures = append(event.Outcome.Failures, RenewFailure{Index: i, Err: &Error{Reason: Reason(reason)}})
		}
		if c := options["contended"]; c != "" && slices.Contains(d.list(c), name) {
			event.Outcome.Contended = append(event.Outcome.Contended, i)
		}
	}
	d.step(event)
}

// step prints what the shell is asked to do.
func (d *keeperDriver) step(event KeeperEvent) {
	effects := d.keeper.Step(d.now, event)
	if _, grant := event.(KeeperGranted); grant && d.keeper.Len() > 100 {
		// Checking so many after each grant takes too long.
	} else if err := d.keeper.check(effects); err != nil {
		d.t.Fatalf("after %T at %v: %v", event, d.at(d.now), err)
	}
	d.wake = effects.Wake
	print := func(format string, args ...any) {
		fmt.Fprintf(&d.printing, "%v ", d.at(d.now))
		fmt.Fprintf(&d.printing, format+"\n", args...)
	}
	for _, b := range effects.Beliefs {
		switch {
		case b.Until == 0:
			print("doubt %s", d.names[b.ID-1])
		case d.rtt == 0:
			print("believe %s until %v", d.names[b.ID-1], d.at(b.Until))
		}
	}
	for _, l := range effects.Lost {
		print("lost %s: %v (%s)", d.names[l.ID-1], l.Cause, l.Reason)
	}
	for _, id := range effects.Contended {
		print("contended %s", d.names[id-1])
	}
	for _, r := range effects.Renewals {
		d.sent = append(d.sent, r)
		var names []string
		for i := range r.Len() {
			names = append(names, string(r.Ref(i).Resource))
		}
		slices.Sort(names)
		kind := "renew"
		if r.Verify != 0 {
			kind = "verify"
		}
		print("%s %d: %s; attempt %d, hedge %v, deadline %v", kind, len(d.sent), shorten(names), r.Attempt, d.at(r.Hedge), d.at(r.Deadline))
		if d.rtt > 0 {
			d.answers = append(d.answers, keeperAnswer{at: d.now.Add(d.rtt), renewal: r})
		}
	}
}

func shorten(names []string) string {
	if len(names) <= 8 {
		return strings.Join(names, ",")
	}
	return fmt.Sprintf("%d leases", len(names))
}

func (d *keeperDriver) show() {
	leases := slices.SortedFunc(slices.Values(d.keeper.leases), func(a, b *keeperLease) int { return cmp.Compare(a.id, b.id) })
	for _, l := range leases {
		flags := ""
		if l.probation {
			flags = ", on probation"
		}
		fmt.Fprintf(&d.printing, "%s until %v, due %v%s\n", d.names[l.id-1], d.at(l.until), d.at(l.due), flags)
	}
	fmt.Fprintf(&d.printing, "now %v, wake %v\n", d.at(d.now), d.at(d.wake))
}

func (d *keeperDriver) at(i clock.Instant) string {
	if i == 0 {
		return "never"
	}
	return i.Sub(keeperOrigin).String()
}

// list reads a,b,c or a..c or lease1..lease9.
func (d *keeperDriver) list(names string) []string {
	first, last, ok := strings.Cut(names, "..")
	if !ok {
		return strings.Split(names, ",")
	}
	stem := strings.TrimRight(first, "0123456789")
	from, err1 := strconv.Atoi(first[len(stem):])
	to, err2 := strconv.Atoi(strings.TrimPrefix(last, stem))
	if err1 != nil || err2 != nil {
		d.t.Fatalf("%q is not a list of names", names)
	}
	var list []string
	for i := from; i <= to; i++ {
		list = append(list, stem+strconv.Itoa(i))
	}
	return list
}

func (d *keeperDriver) fresh(name string) KeeperID {
	d.names = append(d.names, name)
	return KeeperID(len(d.names))
}

// id returns the newest lease of a name.
func (d *keeperDriver) id(name string) KeeperID {
	for i, n := range slices.Backward(d.names) {
		if n == name {
			return KeeperID(i + 1)
		}
	}
	d.t.Fatalf("no lease is called %q", name)
	return 0
}

func (d *keeperDriver) duration(text string) time.Duration {
	if text == "" {
		return 0
	}
	span, err := time.ParseDuration(text)
	if err != nil {
		d.t.Fatal(err)
	}
	return span
}

// check holds the Keeper's bookkeeping against what it stands for.
func (k *Keeper) check(effects KeeperEffects) error {
	urgent, shortest, retry := 0, time.Duration(keeperNever), keeperNever
	for i, l := range k.leases {
		if l.index != i || k.byID[l.id] != l {
			return fmt.Errorf("lease %d is not where it is looked for", l.id)
		}
		if i > 0 && l.until < k.leases[(i-1)/2].until {
			return fmt.Errorf("lease %d is lost before the one above it", l.id)
		}
		if l.until > l.deadline || !k.now.Before(l.until) {
			return fmt.Errorf("lease %d is kept until %d, its deadline is %d, now is %d", l.id, l.until, l.deadline, k.now)
		}
		if l.urgent {
			urgent, retry = urgent+1, min(retry, l.due)
		}
		shortest = min(shortest, l.ttl)
	}
	switch {
	case len(k.byID) != len(k.leases):
		return fmt.Errorf("%d ids for %d leases", len(k.byID), len(k.leases))
	case urgent != k.urgent:
		return fmt.Errorf("%d urgent leases, counted %d", urgent, k.urgent)
	case urgent > 0 && retry < k.retryAt:
		return fmt.Errorf("a retry at %d is overslept until %d", retry, k.retryAt)
	case len(k.leases) > 0 && (k.shortest > shortest || !k.stale && k.shortest != shortest):
		return fmt.Errorf("shortest TTL %v, remembered %v, stale %v", shortest, k.shortest, k.stale)
	case len(k.leases) > 0 && (effects.Wake <= k.now || effects.Wake > k.leases[0].until):
		return fmt.Errorf("wake at %d, now is %d, the first is lost at %d", effects.Wake, k.now, k.leases[0].until)
	case (len(k.leases) == 0) != (effects.Wake == 0):
		return fmt.Errorf("wake at %d with %d leases", effects.Wake, len(k.leases))
	}
	for _, r := range effects.Renewals {
		var last clock.Instant
		for _, l := range r.leases {
			last = max(last, l.until)
		}
		if want := min(last, k.now.Add(keeperCallLimit)); r.Deadline != want || r.Hedge > r.Deadline || r.SentAt != k.now {
			return fmt.Errorf("renewal sent at %d, hedge %d, deadline %d, want %d", r.SentAt, r.Hedge, r.Deadline, want)
		}
	}
	return nil
}

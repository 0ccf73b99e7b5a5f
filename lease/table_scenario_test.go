package lease

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease/clock"
)

// What a command does to a record shows as "stored": a command without that has changed nothing. The commands of a table
// scenario:
//
//	policy PREFIX [ttl=MIN..MAX] [lock-delay=D] [max=N] [regions=A,B]  before anything else; one more rule
//	limits [retention=D] [waiters=N]
//	acquire NAME WHO ID ttl=D [wait=D] [prio=N] [region=R] [meta=N]    WHO is principal#instance; meta: how many bytes
//	cancel NAME WHO ID
//	gone WHO ID                             nobody waits for that answer any more
//	renew WHO NAME@TOKEN…
//	release NAME@TOKEN WHO
//	checkpoint NAME@TOKEN WHO DATA [sequence=N]
//	force NAME[@TOKEN] WHO [now]
//	inspect NAME[@TOKEN] WHO [checkpoint]
//	guard NAME leave|contact                a guard leaves; makes contact
//	guard NAME COVERS [never-lapses]        it enrols, and covers NAMES or PREFIXES*, with commas; its storage goes on by itself
//	ack GUARD NAME@TOKEN                    the guard has proved itself
//	unguard GUARD [unattested]              somebody answers for it; takes it off the list without that
//	rule PREFIX close|open|none             how resources are guarded; "" is the prefix of all
//	claim NAME GROUP                        the resource becomes the tenure of a group
//	fence NAME
//	attest NAME GUARD
//	answer GUARD SESSION                    people answer for a guard that is gone, outside of promotions
//	covering GUARD
//	promote NAME REGION                     the tenure is granted
//	drop NAME
//	tenure NAME
//	guards NAME                             of a tenure, and what is known of them
//	advance D                               the coordinator does what is due as it becomes due
//	stall D                                 the coordinator does nothing for a while
//	takeover [epoch]                        another coordinator loads what was stored
//
// Requests take late=D if they were taken in a while ago. NAME, ID and DATA may be Go strings in quotes, and end with X*N for N
// times the character X.
func TestTableScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/table/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			d := &tableDriver{t: t, epoch: 1, now: tableOrigin, stored: map[Resource][]byte{}, kept: map[Resource][]byte{}, calls: map[CallID]string{}, ids: map[RequestDigest]string{},
				guards: map[string]*writv1.GuardRecord{}}
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

const tableOrigin = clock.Instant(time.Hour)

type tableDriver struct {
	t      *testing.T
	config TableConfig
	table  *Table
	epoch  fence.Epoch
	limit  uint64 // the highest sequence that may be granted
	now    clock.Instant
	stored map[Resource][]byte
	kept   map[Resource][]byte
	guards map[string]*writv1.GuardRecord
	rules  *writv1.GuardingRecord
	calls  map[CallID]string // who waits for an answer
	last   CallID
	ids    map[RequestDigest]string
	out    strings.Builder
}

func (d *tableDriver) command(name string, words []string) string {
	d.out.Reset()
	var plain []string
	options := map[string]string{}
	for _, word := range words {
		key, value, ok := strings.Cut(word, "=")
		if ok && !strings.HasPrefix(word, `"`) {
			options[key] = value
		} else {
			plain = append(plain, d.text(word))
		}
	}
	switch name {
	case "policy":
		d.policy(plain[0], options)
		return ""
	case "limits":
		d.config.Retention, d.config.MaxWaiters = d.duration(options["retention"]), d.number(options["waiters"])
		return ""
	}
	if d.table == nil {
		d.check(d.config.Policy.Validate())
		d.table = NewTable(d.config, d.epoch)
		d.limit = 1000
		d.table.Allow(1, d.limit)
	}
	switch name {
	case "advance":
		d.advance(d.duration(plain[0]))
	case "stall":
		d.now = d.now.Add(d.duration(plain[0]))
	case "takeover":
		d.takeover(slices.Contains(plain, "epoch"))
	case "gone":
		for id, who := range d.calls {
			if who == plain[0]+"/"+plain[1] {
				delete(d.calls, id)
				d.step(Gone{ID: id})
			}
		}
	case "claim", "fence", "attest", "answer", "covering", "promote", "drop", "tenure", "guards":
		d.tenure(name, plain)
	default:
		who, c := d.request(name, plain, options)
		d.last++
		d.calls[d.last] = who
		d.step(Request{ID: d.last, Intake: d.now.Add(-d.duration(options["late"])), Command: c})
		if d.out.Len() == 0 {
			d.out.WriteString("no answer yet\n")
		}
	}
	return short(strings.ToValidUTF8(d.out.String(), "?"))
}

func (d *tableDriver) policy(prefix string, options map[string]string) {
	r := PolicyRule{Prefix: prefix, LockDelay: d.duration(options["lock-delay"]), MaxLeases: d.number(options["max"])}
	if low, high, ok := strings.Cut(options["ttl"], ".."); ok {
		r.MinTTL, r.MaxTTL = d.duration(low), d.duration(high)
	}
	if options["regions"] != "" {
		r.Regions = strings.Split(options["regions"], ",")
	}
	d.config.Policy.Rules = append(d.config.Policy.Rules, r)
}

// request reads a command to the table, and who asks.
func (d *tableDriver) request(name string, plain []string, options map[string]string) (string, Command) {
	switch name {
	case "acquire":
		return plain[1] + "/" + plain[2], Acquire{
			Caller: d.caller(plain[1]), Resource: Resource(plain[0]), RequestID: d.id(plain[2]), TTL: d.duration(options["ttl"]),
			Wait: d.duration(options["wait"]), Priority: int32(d.number(options["prio"])), Region: d.text(options["region"]),
			Metadata: make([]byte, d.number(options["meta"])),
		}
	case "cancel":
		return plain[1] + "/" + plain[2], CancelAcquire{Caller: d.caller(plain[1]), Resource: Resource(plain[0]), RequestID: d.id(plain[2])}
	case "renew":
		c := Renew{Caller: d.caller(plain[0])}
		for _, word := range plain[1:] {
			c.Refs = append(c.Refs, d.ref(word))
		}
		return plain[0], c
	case "release":
		return plain[1], Release{Caller: d.caller(plain[1]), Ref: d.ref(plain[0])}
	case "checkpoint":
		return plain[1], Checkpoint{Caller: d.caller(plain[1]), Ref: d.ref(plain[0]), Data: []byte(plain[2]), Sequence: uint64(d.number(options["sequence"]))}
	case "force":
		return plain[1], ForceRelease{Caller: d.caller(plain[1]), Ref: d.ref(plain[0]), Now: slices.Contains(plain, "now")}
	case "inspect":
		return plain[1], Inspect{
			Caller: d.caller(plain[1]), Ref: d.ref(plain[0]), WithCheckpoint: slices.Contains(plain, "checkpoint"),
		}
	case "guard", "ack", "unguard", "rule":
		return d.guarding(name, plain)
	}
	d.t.Fatalf("unknown command %q", name)
	return "", nil
}

// step takes an event to the table and prints the answers, and what a commit would have stored before they left.
func (d *tableDriver) step(ev TableEvent) {
	replies := d.table.Step(Moment{Now: d.now, Wall: time.UnixMilli(int64(d.now) / 1e6)}, ev).Replies
	var texts []string
	for _, r := range replies {
		who := d.calls[r.ID]
		if who == "" {
			d.t.Fatalf("an answer to nobody: %+v", r)
		}
		delete(d.calls, r.ID)
		texts = append(texts, fmt.Sprintf("%s: %s\n", who, d.tell(r)))
	}
	d.store()
	for _, text := range texts {
		d.out.WriteString(text)
	}
}

// store prints what a commit would have stored.
func (d *tableDriver) store() {
	d.table.Dirty(func(c Change) {
		if c.CheckpointChanged {
			d.kept[c.Resource] = slices.Clone(c.Checkpoint)
		}
		if c.Record == nil {
			delete(d.stored, c.Resource)
			fmt.Fprintf(&d.out, "forgot %s\n", c.Resource)
			return
		}
		stored, err := c.Record.AppendBinary(nil)
		d.check(err)
		d.stored[c.Resource] = stored
		fmt.Fprintf(&d.out, "stored %s: %s\n", c.Resource, d.record(c))
	})
	d.storeGuards()
}

// id notes the id of a request, of which a record keeps the digest alone.
func (d *tableDriver) id(id string) string {
	d.ids[DigestRequest(id)] = id
	return id
}

func (d *tableDriver) record(c Change) string {
	r, s := c.Record, "never granted"
	switch {
	case r.Held && r.Ending:
		s = fmt.Sprintf("%v is held by %v, but not renewable", r.Token, r.Holder)
	case r.Held:
		s = fmt.Sprintf("%v is held by %v", r.Token, r.Holder)
	case r.Token != 0:
		s = fmt.Sprintf("free since %v %v", r.Token, r.End)
	}
	if n := len(r.Outcomes); n > 0 {
		s += fmt.Sprintf("; remembers %d, last %s/%s: %v", n, r.Outcomes[n-1].Principal, d.ids[r.Outcomes[n-1].Request], r.Outcomes[n-1].End)
	}
	if r.TenureGroup != "" {
		s += "; tenure of " + r.TenureGroup
	}
	if r.Fencing != 0 {
		s += fmt.Sprintf("; fencing to %v", r.Fencing)
	}
	if c.CheckpointChanged {
		s += fmt.Sprintf("; checkpoint %q", c.Checkpoint)
	}
	return s
}

func (d *tableDriver) tell(r Reply) string {
	if r.Err != nil {
		return r.Err.Error()
	}
	switch v := r.Value.(type) {
	case *Grant:
		s := fmt.Sprintf("granted %s under %v for %v", v.Resource, v.Token, v.TTL)
		if v.Replayed {
			s += ", again"
		}
		if v.Checkpoint != nil {
			s += fmt.Sprintf(", checkpoint %q", v.Checkpoint)
		}
		return s
	case *Waiting:
		return fmt.Sprintf("waits at place %d behind %v, which is kept for %v", v.Position, v.HeldBy, v.Keep)
	case fence.Token:
		if v == 0 {
			return "cancelled, nothing had been granted"
		}
		return fmt.Sprintf("cancelled, and released %v", v)
	case RenewOutcome:
		s := "renewed"
		for _, f := range v.Failures {
			s += fmt.Sprintf("\n  but not %d: %s", f.Index, f.Err.Error())
		}
		for _, i := range v.Contended {
			s += fmt.Sprintf("\n  higher priority waits for %d", i)
		}
		return s
	case Info:
		s := fmt.Sprintf("%v", v.State)
		if v.State != Free {
			s += fmt.Sprintf(", %v held by %v for another %v", v.Token, v.Holder, v.Remaining)
		}
		s = fmt.Sprintf("%s, %d waiting", s, v.Waiters)
		if v.Checkpoint != nil {
			s += fmt.Sprintf(", checkpoint %q", v.Checkpoint)
		}
		return s
	}
	return "done"
}

// short writes what is long on purpose as X*N.
func short(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		n := 1
		for n < len(s) && s[n] == s[0] {
			n++
		}
		if n > 50 {
			fmt.Fprintf(&b, "%s*%d", s[:1], n)
		} else {
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

// advance wakes the table whenever it asks to be, and says when something happened.
func (d *tableDriver) advance(by time.Duration) {
	until := d.now.Add(by)
	for d.table.NextDue() <= until {
		d.now = max(d.now, d.table.NextDue())
		before := d.out.String()
		d.step(Tick{MaxWrites: math.MaxInt, MaxBytes: math.MaxInt})
		if d.table.NextDue() <= d.now {
			d.t.Fatalf("still due after a tick: %v", d.table.NextDue())
		}
		if said := strings.TrimPrefix(d.out.String(), before); said != "" {
			d.out.Reset()
			fmt.Fprintf(&d.out, "%safter %v\n%s", before, d.now.Sub(tableOrigin), said)
		}
	}
	d.now = until
}

func (d *tableDriver) takeover(epoch bool) {
	d.limit += 1000
	if epoch {
		d.epoch, d.limit = d.epoch+1, 1000
	}
	d.table = NewTable(d.config, d.epoch)
	names := []Resource{}
	for name := range d.stored {
		names = append(names, name)
	}
	slices.Sort(names)
	d.loadGuards()
	for _, name := range names {
		var rec Record
		d.check(rec.UnmarshalBinary(d.stored[name]))
		d.table.Load(Moment{Now: d.now}, rec, d.kept[name])
	}
	d.table.Allow(d.limit-999, d.limit)
	clear(d.calls)
	d.step(Tick{MaxWrites: math.MaxInt, MaxBytes: math.MaxInt})
}

func (d *tableDriver) text(word string) string {
	if strings.HasPrefix(word, `"`) {
		s, err := strconv.Unquote(word)
		d.check(err)
		return s
	}
	if part, n, ok := strings.Cut(word, "*"); ok {
		return part[:len(part)-1] + strings.Repeat(part[len(part)-1:], d.number(n))
	}
	return word
}

func (d *tableDriver) caller(who string) Caller {
	principal, instance, _ := strings.Cut(who, "#")
	return Caller{Principal: Principal(principal), Instance: instance}
}

func (d *tableDriver) ref(word string) Ref {
	name, token, ok := strings.Cut(word, "@")
	ref := Ref{Resource: Resource(name)}
	if n, err := strconv.ParseInt(token, 10, 64); ok && err == nil {
		ref.Token = fence.Token(n)
	} else if ok {
		ref.Token, err = fence.ParseToken(token)
		d.check(err)
	}
	return ref
}

func (d *tableDriver) duration(s string) time.Duration {
	if s == "" {
		return 0
	}
	v, err := time.ParseDuration(s)
	d.check(err)
	return v
}

func (d *tableDriver) number(s string) int {
	if s == "" {
		return 0
	}
	n, err := strconv.Atoi(s)
	d.check(err)
	return n
}

func (d *tableDriver) check(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

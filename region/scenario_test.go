package region

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
)

// Promotions of the group "orders" with the regions eu (primary), us and ap, a guard and an agent each, and every hook. What a
// command leads to shows as transitions, hooks that were asked for, and proofs. The commands:
//
//	hooks KIND…                       before anything else: only these
//	plan MODE TO [loss=any|BYTES]
//	sign N                            two people sign the operation with the number N
//	execute N | abort N | resume N | skip N | run N    run: of an operation that is no promotion
//	settle N | attest N GUARD
//	agent REGION dead|alive|failed|healthy|at BYTES|lag D
//	hook REGION KIND done|failed|none|silent
//	guard REGION dead|alive
//	advance D | takeover | rebuild | show [N]
func TestPromotionScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/promotion/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			d := &driver{t: t}
			got := d.run(string(text))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(text) {
				t.Errorf("%s differs; run the test with -rewrite and review the diff\n%s", file, got)
			}
		})
	}
}

type driver struct {
	t     *testing.T
	w     *world
	hooks []string
	said  string
}

// run tells the scenario anew: a command, then a line of dashes, what came of it, and an empty line.
func (d *driver) run(text string) string {
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
		default:
			out.WriteString(line + "\n")
			if !strings.HasPrefix(line, "#") {
				if printed := d.command(strings.Fields(line)); printed != "" {
					out.WriteString("----\n" + printed)
					skip = true
				}
			}
		}
	}
	return out.String()
}

func (d *driver) command(words []string) string {
	name, args := words[0], words[1:]
	if name == "hooks" {
		d.hooks = args
		return ""
	}
	if d.w == nil {
		d.w = newOrders(d.t, func(s *writv1.GroupSpec) {
			s.Hooks = slices.DeleteFunc(s.Hooks, func(h *writv1.Hook) bool { return d.hooks != nil && !slices.Contains(d.hooks, hookName(h.Kind)) })
		})
	}
	d.w.notes, d.said = nil, ""
	d.do(name, args)
	return d.said + d.story() + d.state(name)
}

// story tells the audit log since the command began.
func (d *driver) story() string {
	var b strings.Builder
	for _, n := range d.w.notes {
		kind, _, _ := strings.Cut(n.Action, ".")
		what := ""
		switch {
		case n.Detail["transition"] != "":
			what = n.Detail["was"] + " → " + strings.ToUpper(strings.TrimPrefix(n.Action, "promotion.")) + " (" + n.Detail["transition"] + ")"
		case n.Action == "promotion.hook":
			what = "hook " + n.Detail["hook"] + " in " + n.Detail["region"] + ", step " + n.Detail["step"] + ": " + n.Detail["outcome"]
		case n.Action == "promotion.proof":
			what = "guard " + n.Detail["guard"] + " is proved: " + n.Detail["how"]
		case n.Action == "promotion.stuck":
			what = "stuck"
		case kind == "tenure":
			what = n.Action + " " + strings.Join(strings.Fields(n.Detail["region"]), " ")
		case n.Action == "operation.propose" && n.Detail["kind"] != "promotion":
			what = "asks for signatures: " + n.Detail["kind"]
		default:
			continue
		}
		if n.Reason != "" && kind == "promotion" {
			what += ": " + n.Reason
		}
		for _, name := range []string{"tails", "entries"} {
			if said := n.Detail[name]; said != "" {
				what += "\n  " + name + " " + strings.ReplaceAll(said, "\n", ", ")
			}
		}
		fmt.Fprintf(&b, "%s %s\n", n.Target, strings.TrimSpace(what))
	}
	return b.String()
}

// state tells where the group stands, after commands that may have changed that.
func (d *driver) state(name string) string {
	if name != "show" {
		return ""
	}
	var b strings.Builder
	g := d.w.groups["orders"]
	fmt.Fprintf(&b, "orders is %s, primary %q, token %v, quarantined %v\n", groupStateName(g.State), g.Primary, fence.Token(g.Token), g.Quarantined)
	for _, id := range slices.Sorted(maps.Keys(d.w.promotions)) {
		p := d.w.must("ops", &writv1.GetPromotionRequest{Id: id}).(*writv1.Promotion)
		fmt.Fprintf(&b, "%s is %s", id, stateName(p.State))
		if p.Reason != "" {
			fmt.Fprintf(&b, ": %s", p.Reason)
		}
		b.WriteString("\n")
		for _, lost := range p.Tails {
			fmt.Fprintf(&b, "  tail of %s under %v: %s\n", lost.From, fence.Token(lost.Token), lossText(lost))
		}
		for _, wait := range p.Waits {
			fmt.Fprintf(&b, "  waits for %s", wait.What)
			if wait.Left != nil {
				fmt.Fprintf(&b, ", %v at most", wait.Left.AsDuration())
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

func lossText(lost *writv1.Tail) string {
	bytes, took := "an unknown number of", "an unknown time"
	if least, known := leastBytes(lost); known {
		bytes = "at least " + strconv.FormatUint(least, 10)
	}
	if lost.Bytes != nil {
		bytes = strconv.FormatUint(*lost.Bytes, 10)
	}
	if lost.Time != nil {
		took = lost.Time.AsDuration().String()
	}
	return bytes + " bytes, " + took
}

func (d *driver) id(n string) string { return fmt.Sprintf("orders-%d.%s", d.w.config.Epoch, n) }

func (d *driver) do(name string, args []string) {
	w := d.w
	switch name {
	case "plan":
		ask := &writv1.PlanRequest{Group: "orders", To: args[1], Mode: writv1.PromotionMode(writv1.PromotionMode_value["PROMOTION_MODE_"+strings.ToUpper(args[0])]), Reason: "scenario"}
		for _, option := range args[2:] {
			if value, ok := strings.CutPrefix(option, "loss="); ok {
				ask.LossCap = &writv1.Loss{}
				if bytes, err := strconv.ParseUint(value, 10, 64); err == nil {
					ask.LossCap.Bytes = &bytes
				}
			}
		}
		d.ask(ask)
	case "execute":
		d.ask(&writv1.ExecuteRequest{Id: d.id(args[0])})
	case "abort":
		d.ask(&writv1.AbortRequest{Id: d.id(args[0]), Reason: "aborted"})
	case "resume", "skip":
		d.ask(&writv1.ResumeRequest{Id: d.id(args[0]), SkipHook: name == "skip"})
	case "settle":
		d.ask(&writv1.ReinstateRequest{Id: d.id(args[0]), Disposition: writv1.Disposition_DISPOSITION_ACCEPTED})
	case "attest":
		d.ask(&writv1.AttestGuardRequest{Id: d.id(args[0]), Guard: args[1], Reason: "it is off"})
	case "run":
		d.ask(&writv1.ExecuteOperationRequest{Id: d.id(args[0])})
	case "sign":
		if err := w.sign(d.id(args[0])); err != nil {
			d.said += "refused: " + err.Error() + "\n"
		}
	case "agent":
		d.agent(w.agents[args[0]], args[1:])
	case "hook":
		a, kind := w.agents[args[0]], writv1.HookKind(writv1.HookKind_value["HOOK_KIND_"+strings.ToUpper(args[1])])
		a.silent[kind] = args[2] == "silent"
		a.outcomes[kind] = writv1.HookOutcome(writv1.HookOutcome_value["HOOK_OUTCOME_"+strings.ToUpper(args[2])])
	case "guard":
		w.deadGuards["guard-"+args[0]] = args[1] == "dead"
	case "advance":
		w.pass(d.duration(args[0]))
	case "takeover":
		w.takeover()
		w.settle()
	case "rebuild":
		w.rebuild()
		w.settle()
	case "show":
	default:
		d.t.Fatalf("there is no command %q", name)
	}
	w.settle()
}

func (d *driver) agent(a *agentProcess, args []string) {
	switch args[0] {
	case "dead", "alive":
		a.dead = args[0] == "dead"
	case "failed":
		a.health = writv1.Health_HEALTH_FAILED
	case "healthy":
		a.health = writv1.Health_HEALTH_OK
	case "at":
		a.position, _ = strconv.ParseUint(args[1], 10, 64)
	case "lag":
		a.lag = d.duration(args[1])
	case "lost":
		a.lost = args[1:]
	}
}

func (d *driver) ask(ask proto.Message) {
	if _, err := d.w.ask("ops", ask); err != nil {
		d.said += "refused: " + err.Error() + "\n"
	}
}

func (d *driver) duration(s string) time.Duration {
	v, err := time.ParseDuration(s)
	if err != nil {
		d.t.Fatal(err)
	}
	return v
}

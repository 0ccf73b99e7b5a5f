package partition

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var rewrite = flag.Bool("rewrite", false, "write what scenarios answer into their files, to be read as a diff")

// TestScenarios plays the files below testdata. Each line is a command; what it answers stands below it after "> ".
//
//	partitions N [HOME ...]   begins; - is no home
//	join ID | leave ID | crash ID | pause ID | wake ID | resync ID
//	return ID INDEX           a function returns
//	stubborn ID               functions of the member return only when their context has ended
//	expire NAME               a lease below the group runs out, or is taken away
//	step ID                   the member sees and hears everything; answers what it does
//	hear ID N                 the member hears the next N things that it has not heard; answers what it does
//	ask [ID]                  the quorum takes in what everybody, or one, asks
//	wait DURATION             time passes
//	rest                      everything happens that can, until nothing can any more
//	show                      answers who holds what
//	moved                     answers how many partitions were granted since it was last asked
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/scenarios/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(text))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			} else if got != string(text) {
				t.Errorf("played:\n%s\nwant:\n%s", got, text)
			}
		})
	}
}

func play(t *testing.T, text string) string {
	var w *world
	var out strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, ">") {
			continue
		}
		out.WriteString(line)
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		if words[0] == "partitions" {
			n, err := strconv.Atoi(words[1])
			if err != nil {
				t.Fatal(err)
			}
			w = newWorld(t, n, homesOf(words[2:]))
			continue
		}
		for answer := range strings.Lines(w.command(words)) {
			out.WriteString("> " + strings.TrimSuffix(answer, "\n") + "\n")
		}
	}
	return out.String()
}

func homesOf(words []string) []string {
	var homes []string
	for _, word := range words {
		homes = append(homes, strings.TrimPrefix(word, "-"))
	}
	return homes
}

// command carries one line out.
func (w *world) command(words []string) string {
	var a *actor
	if len(words) > 1 {
		if i := slices.IndexFunc(w.actors, func(a *actor) bool { return a.id == words[1] && !a.gone && !a.done }); i >= 0 {
			a = w.actors[i]
		}
	}
	switch words[0] {
	case "join":
		w.join(words[1])
	case "leave":
		a.inbox = append(a.inbox, Leave{})
	case "crash":
		w.crash(a)
	case "pause":
		a.frozen = true
	case "wake":
		a.frozen = false
	case "stubborn":
		a.stubborn = true
	case "resync":
		w.resync(a)
	case "return":
		index, err := strconv.Atoi(words[2])
		if err != nil {
			w.t.Fatal(err)
		}
		w.finish(a, index)
	case "expire":
		w.expire(w.names.Prefix() + words[1])
	case "step":
		return w.show(w.step(a, len(a.inbox), len(w.history)))
	case "hear":
		n, err := strconv.Atoi(words[2])
		if err != nil {
			w.t.Fatal(err)
		}
		return w.show(w.step(a, n, 0))
	case "ask":
		for _, b := range w.actors {
			for len(b.asks) > 0 && (a == nil || a == b) {
				w.ask(b)
			}
		}
	case "wait":
		span, err := time.ParseDuration(words[1])
		if err != nil {
			w.t.Fatal(err)
		}
		w.now = w.now.Add(span)
	case "rest":
		w.rest()
		w.check()
	case "show":
		return strings.ReplaceAll(w.String(), "; ", "\n")
	case "moved":
		defer func() { w.moved = 0 }()
		return strconv.Itoa(w.moved)
	default:
		w.t.Fatalf("unknown command %q", words[0])
	}
	return ""
}

// show tells effects.
func (w *world) show(e Effects) string {
	var s []string
	for _, part := range []struct {
		name string
		is   bool
	}{{"join", e.Join}, {"quit", e.Quit}, {"done", e.Done}} {
		if part.is {
			s = append(s, part.name)
		}
	}
	for _, part := range []struct {
		name    string
		indices []int
	}{{"ask", e.Ask}, {"cancel", e.Cancel}, {"start", e.Start}, {"revoke", e.Revoke}, {"end", e.End}, {"release", e.Release}} {
		if len(part.indices) > 0 {
			s = append(s, part.name+" "+strings.Trim(fmt.Sprint(part.indices), "[]"))
		}
	}
	if e.Wake != 0 {
		s = append(s, fmt.Sprintf("wake in %v", e.Wake.Sub(w.now)))
	}
	if len(s) == 0 {
		return "nothing"
	}
	return strings.Join(s, "; ")
}

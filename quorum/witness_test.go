package quorum

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/writ-io/writ/fence"
)

func someWitness() Witness {
	return Witness{
		Cluster: "orders", Node: "eu-1", MemberID: 1<<63 + 7, Incarnation: "0f3a", Epoch: 3, Ceiling: 1 << 40,
		RaftTerm: 12, AppliedIndex: 90_000, Revision: 45_000, MaxTTL: 90 * time.Second,
	}
}

func TestWitnessRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "witness.json")
	w := someWitness()
	for range 2 { // once new, once replacing
		if err := SaveWitness(path, w); err != nil {
			t.Fatal(err)
		}
		got, err := LoadWitness(path)
		if err != nil || got != w {
			t.Fatalf("loaded %+v, %v, want %+v", got, err, w)
		}
		w.AppliedIndex++
		w.Foreign = "restored from a \"snapshot\""
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v, %v, want 0600", info.Mode(), err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("directory holds %v, %v, want the witness alone", entries, err)
	}
}

func TestWitnessMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "witness.json")
	_, err := LoadWitness(path)
	if !errors.Is(err, ErrWitnessMissing) || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, want ErrWitnessMissing that names %s", err, path)
	}
	if err := SaveWitness(filepath.Join(path, "below", "witness.json"), someWitness()); err == nil {
		t.Error("saved into a directory that does not exist")
	}
}

// Every change of a byte is either refused or does not change what the file says.
func TestWitnessEdited(t *testing.T) {
	raw, err := formatWitness(someWitness())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "witness.json")
	for i := range raw {
		for _, b := range []byte{raw[i] ^ 1, raw[i] ^ 0x20, ' ', '0', '9'} {
			edited := append([]byte{}, raw...)
			edited[i] = b
			if w, err := parseWitness(edited); err == nil && w != someWitness() {
				t.Fatalf("byte %d as %q was accepted as %+v", i, b, w)
			}
		}
		if w, err := parseWitness(raw[:i]); err == nil && w != someWitness() {
			t.Fatalf("accepted %d bytes", i)
		}
	}
	for name, edited := range map[string]string{
		"raised":  strings.Replace(string(raw), `"epoch": 3`, `"epoch": 4`, 1),
		"unknown": strings.Replace(string(raw), `"epoch": 3`, `"epoch": 3, "higher": 9`, 1),
		"newer":   strings.Replace(string(raw), `"version": 1`, `"version": 2`, 1),
		"doubled": string(raw) + string(raw),
		"empty":   "",
		"null":    "null",
		"long":    string(raw) + strings.Repeat(" ", witnessBytes),
	} {
		if edited == string(raw) {
			t.Fatalf("%s: nothing was edited", name)
		}
		if err := os.WriteFile(path, []byte(edited), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadWitness(path); !errors.Is(err, ErrWitnessEdited) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, want ErrWitnessEdited that names %s", name, err, path)
		}
		if err := SaveWitness(path, someWitness()); !errors.Is(err, ErrWitnessEdited) {
			t.Errorf("%s: replaced it: %v", name, err)
		}
	}
}

func TestWitnessIsNeverLowered(t *testing.T) {
	for name, lower := range map[string]func(*Witness){
		"epoch":         func(w *Witness) { w.Epoch-- },
		"ceiling":       func(w *Witness) { w.Ceiling-- },
		"max ttl":       func(w *Witness) { w.MaxTTL -= time.Millisecond },
		"raft term":     func(w *Witness) { w.RaftTerm-- },
		"applied index": func(w *Witness) { w.AppliedIndex-- },
		"revision":      func(w *Witness) { w.Revision-- },
		"cluster":       func(w *Witness) { w.Cluster = "billing" },
		"node":          func(w *Witness) { w.Node = "us-1" },
	} {
		path := filepath.Join(t.TempDir(), "witness.json")
		if err := SaveWitness(path, someWitness()); err != nil {
			t.Fatal(err)
		}
		w := someWitness()
		lower(&w)
		if err := SaveWitness(path, w); !errors.Is(err, ErrWitnessLowered) {
			t.Errorf("%s: got %v, want ErrWitnessLowered", name, err)
		}
		if got, err := LoadWitness(path); err != nil || got != someWitness() {
			t.Errorf("%s: file says %+v, %v", name, got, err)
		}
	}
}

func TestWitnessNewEpochBeginsItsCeilingAgain(t *testing.T) {
	seen := someWitness()
	seen.Epoch, seen.Incarnation, seen.Ceiling = 4, "77aa", 1000
	got, err := someWitness().Advance(seen)
	if err != nil || got != seen {
		t.Errorf("got %+v, %v, want %+v", got, err, seen)
	}
}

func TestWitnessStaysForeignUntilTheEpochRises(t *testing.T) {
	foreign := someWitness()
	foreign.Foreign = "restored"
	got, err := foreign.Advance(someWitness())
	if err != nil || got.Foreign != "restored" {
		t.Errorf("in the same epoch: %q, %v", got.Foreign, err)
	}
	raised := someWitness()
	raised.Epoch++
	got, err = foreign.Advance(raised)
	if err != nil || got.Foreign != "" {
		t.Errorf("in the next epoch: %q, %v", got.Foreign, err)
	}
}

func TestWitnessAdvanceRefusesAnotherHistory(t *testing.T) {
	for name, change := range map[string]func(*Witness){
		"incarnation": func(w *Witness) { w.Incarnation = "77aa" },
		"member":      func(w *Witness) { w.MemberID = 5 },
		"node":        func(w *Witness) { w.Node = "us-1" },
	} {
		seen := someWitness()
		change(&seen)
		got, err := someWitness().Advance(seen)
		if !errors.Is(err, ErrWitnessLowered) || got != someWitness() {
			t.Errorf("%s: got %+v, %v, want ErrWitnessLowered and no change", name, got, err)
		}
	}
}

func TestWitnessRebase(t *testing.T) {
	restored := Witness{Cluster: "orders", Node: "eu-1", MemberID: 5, Incarnation: "77aa", Epoch: 2, Ceiling: 9, RaftTerm: 1}
	if _, err := someWitness().Rebase(restored); !errors.Is(err, ErrWitnessLowered) {
		t.Errorf("without a reason: %v", err)
	}
	restored.Foreign = "restored from a snapshot"
	got, err := someWitness().Rebase(restored)
	if err != nil {
		t.Fatal(err)
	}
	old := someWitness()
	if got.Epoch != old.Epoch || got.Ceiling != old.Ceiling || got.MaxTTL != old.MaxTTL {
		t.Errorf("forgot tokens: %+v", got)
	}
	if got.MemberID != 5 || got.AppliedIndex != 0 || got.RaftTerm != 1 || got.Foreign != restored.Foreign {
		t.Errorf("kept positions of the other history: %+v", got)
	}
	path := filepath.Join(t.TempDir(), "witness.json")
	if err := SaveWitness(path, old); err != nil {
		t.Fatal(err)
	}
	if err := SaveWitness(path, got); err != nil {
		t.Errorf("save a rebased witness: %v", err)
	}
}

// No sequence of updates lets a witness forget a token, a TTL or, within one history, a position.
func TestWitnessMonotone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := Witness{Cluster: "c", Node: "n", MemberID: 1, Incarnation: "i"}
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			seen := Witness{
				Cluster: "c", Node: "n",
				MemberID:     rapid.Uint64Range(1, 2).Draw(t, "member"),
				Incarnation:  rapid.SampledFrom([]string{"i", "j"}).Draw(t, "incarnation"),
				Epoch:        fence.Epoch(rapid.IntRange(0, 3).Draw(t, "epoch")),
				Ceiling:      rapid.Uint64Range(0, 5).Draw(t, "ceiling"),
				RaftTerm:     rapid.Uint64Range(0, 5).Draw(t, "raft term"),
				AppliedIndex: rapid.Uint64Range(0, 5).Draw(t, "applied"),
				Revision:     rapid.Int64Range(0, 5).Draw(t, "revision"),
				MaxTTL:       time.Duration(rapid.Int64Range(0, 5).Draw(t, "ttl")) * time.Second,
				Foreign:      rapid.SampledFrom([]string{"", "restored"}).Draw(t, "foreign"),
			}
			update, rebase := w.Advance, rapid.Bool().Draw(t, "rebase")
			if rebase {
				update = w.Rebase
			}
			next, err := update(seen)
			if err != nil {
				if next != w {
					t.Fatalf("refused, but changed %+v to %+v", w, next)
				}
				continue
			}
			if next.Epoch < w.Epoch || next.Epoch == w.Epoch && next.Ceiling < w.Ceiling || next.MaxTTL < w.MaxTTL {
				t.Fatalf("%+v became %+v", w, next)
			}
			if !rebase && (next.AppliedIndex < w.AppliedIndex || next.RaftTerm < w.RaftTerm || next.Revision < w.Revision) {
				t.Fatalf("%+v became %+v", w, next)
			}
			if seen.Epoch > next.Epoch || seen.Epoch == next.Epoch && seen.Ceiling > next.Ceiling || seen.MaxTTL > next.MaxTTL {
				t.Fatalf("%+v is not in %+v", seen, next)
			}
			w = next
		}
	})
}

func FuzzParseWitness(f *testing.F) {
	raw, err := formatWitness(someWitness())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"witness":null,"sha256":""}`))
	f.Add([]byte(`{"witness":{"version":1},"sha256":"00"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		w, err := parseWitness(raw)
		if err != nil {
			return
		}
		again, err := formatWitness(w)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := parseWitness(again); err != nil || back != w {
			t.Errorf("%+v came back as %+v, %v", w, back, err)
		}
	})
}

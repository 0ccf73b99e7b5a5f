package record_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writ-io/writ/jepsen/record"
)

func newRun() record.Run {
	return record.Run{Name: "run", Seed: 7, Command: []string{"jepsen"}, Workloads: []string{"register"}, Nemeses: []string{"kill-node"}}
}

// write makes a directory with two calls, of which one has no answer, an event and a fault.
func write(t *testing.T, end bool) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "run")
	w, err := record.Create(dir, newRun())
	if err != nil {
		t.Fatal(err)
	}
	w.Round([]string{"kill-node"})
	over := w.Fault("kill-node", "eu")
	done := w.Call("register", "c1", "acquire", map[string]int{"ttl": 5})
	w.Call("register", "c2", "renew", nil)
	w.Event("appends", "store", "applied", []string{"x"})
	done(record.OK, "granted")
	over()
	w.Healed()
	if end {
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	for _, ended := range []bool{true, false} {
		h, err := record.Read(write(t, ended))
		if err != nil {
			t.Fatal(err)
		}
		if h.Complete() != ended || h.Run.Seed != 7 {
			t.Errorf("ended is %v: %+v", ended, h.Run)
		}
		if len(h.Calls) != 2 || len(h.Events) != 1 || len(h.Rounds) != 1 || len(h.Faults) != 1 {
			t.Fatalf("%+v", h)
		}
		first, second := h.Calls[0], h.Calls[1]
		if first.Outcome != record.OK || first.Open || first.Returned < first.At || string(first.Result) != `"granted"` || first.Round != 1 {
			t.Errorf("the first call: %+v", first)
		}
		if !second.Open || second.Outcome != record.Unknown {
			t.Errorf("the second call: %+v", second)
		}
		if f := h.Faults[0]; f.Round != 1 || f.Ended < f.Began || f.Detail != "eu" || h.Rounds[0].Healed < f.Ended {
			t.Errorf("the fault %+v of %+v", f, h.Rounds)
		}
		if h.RoundAt(h.Last) != 1 || h.RoundAt(0) != 0 {
			t.Errorf("rounds at %v and 0: %d, %d", h.Last, h.RoundAt(h.Last), h.RoundAt(0))
		}
	}
}

func TestSecondRunInADirectory(t *testing.T) {
	if _, err := record.Create(write(t, true), newRun()); err == nil {
		t.Error("a run was overwritten")
	}
}

func TestWrittenAfterTheEnd(t *testing.T) {
	w, err := record.Create(t.TempDir(), newRun())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w.Event("a", "b", "c", nil)
	if w.Close() == nil {
		t.Error("a line was lost without a word")
	}
}

// What could not be written is told at the end, and the run does not count as a whole one.
func TestWhatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	w, err := record.Create(dir, newRun())
	if err != nil {
		t.Fatal(err)
	}
	w.Event("a", "b", "c", make(chan int))
	w.Event("a", "b", "d", nil)
	if err := w.Close(); err == nil || !strings.Contains(err.Error(), "chan int") {
		t.Errorf("a line was lost: %v", err)
	}
	h, err := record.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if h.Complete() || len(h.Events) != 1 {
		t.Errorf("complete is %v, with %+v", h.Complete(), h.Events)
	}
}

// A workload has succeeded when a call was made, not when its answer came.
func TestSucceeded(t *testing.T) {
	w, err := record.Create(t.TempDir(), newRun())
	if err != nil {
		t.Fatal(err)
	}
	early := w.Call("register", "c1", "acquire", nil)
	between := w.Healed()
	early(record.OK, nil)
	w.Call("register", "c1", "acquire", nil)(record.Fail, nil)
	w.Call("other", "c1", "acquire", nil)(record.OK, nil)
	if at := w.Succeeded("register"); at == 0 || at >= between {
		t.Errorf("the last success is at %v, asked for before %v", at, between)
	}
	w.Call("register", "c1", "acquire", nil)(record.OK, nil)
	if at := w.Succeeded("register"); at < between {
		t.Errorf("the last success is at %v, asked for after %v", at, between)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// A harness that dies cuts at most its last line short.
func TestTornLine(t *testing.T) {
	dir := write(t, true)
	path := filepath.Join(dir, record.HistoryFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := 1; cut < 40; cut++ {
		if err := os.WriteFile(path, data[:len(data)-cut], 0o600); err != nil {
			t.Fatal(err)
		}
		h, err := record.Read(dir)
		if err != nil {
			t.Fatalf("%d bytes short: %v", cut, err)
		}
		if h.Complete() || !h.Calls[0].Open {
			t.Errorf("%d bytes short: complete is %v, the call %+v", cut, h.Complete(), h.Calls[0])
		}
	}
}

func TestErrorsNameFileLineAndField(t *testing.T) {
	for _, row := range []struct{ file, line, want string }{
		{record.HistoryFile, `{"at":1,"what":"call","id":9,"workload":"w","client":"c","op":"o"}` + "\n" + `{"at":2,"what":"retrun","id":9}`, `history.jsonl:2: field "what"`},
		{record.HistoryFile, `{"at":1,"what":"return","id":9,"outcome":"ok"}`, `history.jsonl:1: field "id"`},
		{record.HistoryFile, `{"at":1,"what":"call","id":9,"client":"c","op":"o"}`, `history.jsonl:1: field "workload"`},
		{record.HistoryFile, `{"at":1,"what":"call","workload":"w","client":"c","op":"o"}`, `history.jsonl:1: field "id"`},
		{record.HistoryFile, `{"at":-1,"what":"event","workload":"w","client":"c","op":"o"}`, `history.jsonl:1: field "at"`},
		{record.HistoryFile, `{"at":5,"what":"event","workload":"w","client":"c","op":"o"}` + "\n" + `{"at":4,"what":"event","workload":"w","client":"c","op":"o"}`, `history.jsonl:2: field "at"`},
		{record.HistoryFile, `{"at":"x"}`, `history.jsonl:1: field "at"`},
		{record.HistoryFile, `{"at":1,"wat":1}`, `history.jsonl:1: json: unknown field "wat"`},
		{record.HistoryFile, `{"at":1,"what":"call","id":9,"workload":"w","client":"c","op":"o"}` + "\n" + `{"at":2,"what":"return","id":9,"outcome":"maybe"}`, `history.jsonl:2: field "outcome"`},
		{record.HistoryFile, `{"at":1,"what":"call","id":9,"workload":"w","client":"c","op":"o"} {}`, `history.jsonl:1: something follows`},
		{record.HistoryFile, `{"at":1,"what":"call","id":9,"workload":"w","client":"c","op":"o"}` + "\n" + `{"at":1,"what":"call","id":9,"workload":"w","client":"c","op":"o"}`, `history.jsonl:2: field "id" is 9 again`},
		{record.HistoryFile, `{"at":1,"what":"call","id":9,"workload":"w","client":"c","op":"o"}` + "\n" + `{"at":2,"what":"return","id":9,"outcome":"ok"}` + "\n" + `{"at":3,"what":"return","id":9,"outcome":"fail"}`, `history.jsonl:3: field "id"`},
		{record.FaultsFile, `{"at":1,"what":"begin","id":1,"nemesis":"n"}` + "\n" + `{"at":1,"what":"begin","id":1,"nemesis":"n"}`, `faults.jsonl:2: field "id"`},
		{record.FaultsFile, `{"at":1,"what":"begin","id":1,"nemesis":"n"}` + "\n" + `{"at":2,"what":"end","id":1}` + "\n" + `{"at":3,"what":"end","id":1}`, `faults.jsonl:3: field "id"`},
		{record.FaultsFile, `{"at":1,"what":"round","round":2}`, `faults.jsonl:1: field "round"`},
		{record.FaultsFile, `{"at":1,"what":"begin","id":1}`, `faults.jsonl:1: field "nemesis"`},
		{record.FaultsFile, `{"at":1,"what":"end","id":1}`, `faults.jsonl:1: field "id"`},
		{record.FaultsFile, `{"at":1,"what":"healed","round":1}`, `faults.jsonl:1: field "round"`},
		{record.RunFile, `{"format":2,"name":"x","workloads":["a"]}`, `run.json: field "format"`},
		{record.RunFile, `{"format":1,"name":"x"}`, `run.json: field "workloads"`},
		{record.RunFile, `{"format":1,"nam":"x"}`, `run.json: json: unknown field`},
	} {
		dir := write(t, true)
		if err := os.WriteFile(filepath.Join(dir, row.file), []byte(row.line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := record.Read(dir); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %s", row.line, err, row.want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"format":1,"name":"x","workloads":["a"]}`), []byte(`{"at":1,"what":"call","id":9,"workload":"w","client":"c","op":"o"}`+"\n"), []byte(`{"at":1,"what":"round","round":1}`+"\n"))
	f.Add([]byte(`{}`), []byte("\n"), []byte(`{"at":1,"what":"begin","id":1,"nemesis":"n"}`+"\n"+`{"at":1,"what":"end","id":1}`+"\n"))
	f.Fuzz(func(t *testing.T, run, history, faults []byte) {
		dir := t.TempDir()
		for name, data := range map[string][]byte{record.RunFile: run, record.HistoryFile: history, record.FaultsFile: faults} {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		h, err := record.Read(dir)
		if err != nil {
			return
		}
		for _, c := range h.Calls {
			if c.Open != (c.Returned == 0 && c.Outcome == record.Unknown && c.Result == nil) && c.Returned != 0 {
				t.Errorf("a call that is open and has returned: %+v", c)
			}
			if !c.Open && c.Returned < c.At {
				t.Errorf("a call that returned before it was made: %+v", c)
			}
		}
	})
}

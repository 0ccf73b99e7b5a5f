package record

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// What the harness itself writes between what workloads do.
const (
	Harness      = "harness"
	OpGoroutines = "goroutines"
)

// Writer writes a directory. Its methods are safe for concurrent use. What cannot be written is remembered, and returned by
// Close; until then everybody goes on.
type Writer struct {
	dir   string
	start time.Time

	mu      sync.Mutex
	run     Run      // guarded by mu, and so is what follows
	history *os.File // nil after Close
	faults  *os.File
	id      uint64
	fault   uint64
	round   int
	failed  error
	// succeeded is when the latest call of a workload was made that has succeeded, and reads are operations that do not count.
	succeeded map[string]time.Duration
	reads     map[[2]string]bool // by workload and operation
}

// Create makes the directory, which must not hold a run yet, and begins to count time.
func Create(dir string, run Run) (*Writer, error) {
	run.Format = Format
	if err := run.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, LogsDir), 0o700); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, RunFile)); err == nil {
		return nil, errors.New("record: " + dir + " holds a run already: name another directory")
	}
	w := &Writer{dir: dir, start: time.Now(), run: run, succeeded: make(map[string]time.Duration), reads: make(map[[2]string]bool)}
	if err := run.write(dir); err != nil {
		return nil, err
	}
	var err error
	if w.history, err = create(dir, HistoryFile); err != nil {
		return nil, err
	}
	if w.faults, err = create(dir, FaultsFile); err != nil {
		return nil, errors.Join(err, w.history.Close())
	}
	return w, nil
}

func create(dir, name string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
}

// Now is the time since the start of the run.
func (w *Writer) Now() time.Duration { return time.Since(w.start) }

// Logs is the directory for the logs of processes.
func (w *Writer) Logs() string { return filepath.Join(w.dir, LogsDir) }

// Call writes that a call is about to be made, and returns what to tell its outcome to, once. Value is anything that JSON
// can hold, nil for nothing.
func (w *Writer) Call(workload, client, op string, value any) (done func(Outcome, any)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.id++
	id := w.id
	made := w.line(historyLine{What: whatCall, ID: id, Round: w.round, Workload: workload, Client: client, Op: op}, value)
	return func(outcome Outcome, value any) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if outcome == OK && !w.reads[[2]string{workload, op}] {
			w.succeeded[workload] = max(w.succeeded[workload], made)
		}
		w.line(historyLine{What: whatReturn, ID: id, Outcome: outcome}, value)
	}
}

// Reads says that an operation of a workload changes nothing, so that its success shows little. It is called before any call.
func (w *Writer) Reads(workload, op string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reads[[2]string{workload, op}] = true
}

// Succeeded is when the latest call of a workload was made that has succeeded, but for what Reads names; 0: none has.
func (w *Writer) Succeeded(workload string) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.succeeded[workload]
}

// Event writes what a process said.
func (w *Writer) Event(workload, client, op string, value any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.line(historyLine{What: whatEvent, Round: w.round, Workload: workload, Client: client, Op: op}, value)
}

// Goroutines writes how many a process had when little was asked of it.
func (w *Writer) Goroutines(party string, count int) { w.Event(Harness, party, OpGoroutines, count) }

// Round begins a round with these nemeses and returns its number, from 1.
func (w *Writer) Round(nemeses []string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.round++
	w.faultLine(faultLine{What: whatRound, Round: w.round, Nemeses: nemeses})
	return w.round
}

// Healed writes that every fault is over, everything that it ended runs again, and when that is.
func (w *Writer) Healed() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.faultLine(faultLine{What: whatHealed, Round: w.round})
}

// Fault writes that a fault begins, and returns what is to be called when it is over.
func (w *Writer) Fault(nemesis, detail string) (end func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault++
	id := w.fault
	w.faultLine(faultLine{What: whatBegin, ID: id, Nemesis: nemesis, Detail: detail})
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.faultLine(faultLine{What: whatEnd, ID: id})
	}
}

// Problem writes what is not in the history.
func (w *Writer) Problem(p Problem) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.run.Problems = append(w.run.Problems, p)
	w.failed = errors.Join(w.failed, w.run.write(w.dir))
}

// Close ends the run, and says so if all of it could be written.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.history == nil {
		return w.failed
	}
	w.failed = errors.Join(w.failed, w.history.Close(), w.faults.Close())
	w.history, w.faults = nil, nil
	if w.failed == nil {
		w.run.Ended = true
		w.failed = w.run.write(w.dir)
	}
	return w.failed
}

// line stamps a line, writes it and returns the stamp. The caller holds mu, so that times do not decrease.
func (w *Writer) line(l historyLine, value any) time.Duration {
	var err error
	if value != nil {
		l.Value, err = json.Marshal(value)
	}
	l.At = w.Now()
	w.put(w.history, l, err)
	return l.At
}

func (w *Writer) faultLine(l faultLine) time.Duration {
	l.At = w.Now()
	w.put(w.faults, l, nil)
	return l.At
}

func (w *Writer) put(file *os.File, line any, err error) {
	if file == nil {
		w.failed = errors.Join(w.failed, errors.New("record: written to after the end"))
		return
	}
	var data []byte
	if err == nil {
		data, err = json.Marshal(line)
	}
	if err == nil {
		_, err = file.Write(append(data, '\n'))
	}
	if err != nil && w.failed == nil {
		w.failed = err
	}
}

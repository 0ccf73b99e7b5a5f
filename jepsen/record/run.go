package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Format is the version of the directory's layout.
const Format = 1

// The files of a directory.
const (
	RunFile     = "run.json"
	HistoryFile = "history.jsonl"
	FaultsFile  = "faults.jsonl"
	LogsDir     = "logs"
	// AuditFile is what the quorum said in the end of what it had done: a bundle of package audit. Not every run has it.
	AuditFile = "audit.tgz"
	// ControlsDir holds the runs that must be found invalid, a directory each.
	ControlsDir = "controls"
)

// Run says what was run.
type Run struct {
	Format int `json:"format"`
	// Name is "run", or that of a positive control.
	Name string `json:"name"`
	// Control: the run must be found invalid.
	Control bool   `json:"control"`
	Seed    uint64 `json:"seed"`
	// Began is for people: wall time, UTC.
	Began   time.Time `json:"began"`
	Command []string  `json:"command"`
	// FaultsMS is for how long faults were to happen, in milliseconds.
	FaultsMS int64             `json:"faults_ms"`
	Versions map[string]string `json:"versions"`
	// Topology are the parties: each is a network namespace with what is called so in it.
	Topology []string `json:"topology"`
	// Matrix names how far the regions are from each other; empty: they are in one place.
	Matrix string `json:"matrix,omitempty"`
	// Pace is the share of a workload's least rate that is asked for over such distances, from 0 to 1; 0: all of it.
	Pace      float64  `json:"pace,omitempty"`
	Workloads []string `json:"workloads"`
	Nemeses   []string `json:"nemeses"`
	// Controls are the positive controls that belong to the run.
	Controls []string `json:"controls,omitempty"`
	// Breaks is what a control breaks, and has to be found invalid.
	Breaks *Check `json:"breaks,omitempty"`
	// LeftOut says why this machine could not have some nemeses and controls, by name.
	LeftOut map[string]string `json:"left_out,omitempty"`
	// Ended is false while the run goes on, and stays so if the harness dies.
	Ended bool `json:"ended"`
	// Problems are what went wrong with a process or with the harness itself.
	Problems []Problem `json:"problems"`
}

// Check names a judgement.
type Check struct {
	Workload string `json:"workload"`
	Check    string `json:"check"`
}

// Problem is something that is not in the history. Broken: it breaks a promise of what is tried; otherwise the harness
// failed, and nothing is known.
type Problem struct {
	Broken bool   `json:"broken"`
	Text   string `json:"text"`
}

// Validate names the first field that cannot be.
func (r *Run) Validate() error {
	switch {
	case r.Format != Format:
		return fieldError{"format", fmt.Sprintf("is %d: this program reads format %d", r.Format, Format)}
	case r.Name == "":
		return fieldError{"name", "is missing: give the name of the run"}
	case r.FaultsMS < 0:
		return fieldError{"faults_ms", fmt.Sprintf("is %d: give 0 or more milliseconds", r.FaultsMS)}
	case !(r.Pace >= 0 && r.Pace <= 1): // and not a number neither
		return fieldError{"pace", fmt.Sprintf("is %v: give a share from 0 to 1", r.Pace)}
	case len(r.Workloads) == 0:
		return fieldError{"workloads", "is empty: name at least one"}
	}
	return nil
}

// write replaces the file at once, so that a reader finds the old one or the new one.
func (r *Run) write(dir string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, RunFile)
	if err := os.WriteFile(path+".new", append(data, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// ParseRun reads a run.json.
func ParseRun(data []byte) (*Run, error) {
	var r Run
	if err := strict(data, &r); err != nil {
		return nil, fmt.Errorf("record: %s: %w", RunFile, err)
	}
	if err := r.Validate(); err != nil {
		return nil, fmt.Errorf("record: %s: %w", RunFile, err)
	}
	return &r, nil
}

// fieldError names a field.
type fieldError struct{ field, problem string }

func (e fieldError) Error() string { return fmt.Sprintf("field %q %s", e.field, e.problem) }

// strict reads one value of JSON that must fill the line and hold no field that v does not know.
func strict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		var kind *json.UnmarshalTypeError
		if errors.As(err, &kind) && kind.Field != "" {
			return fieldError{kind.Field, fmt.Sprintf("is a %s: give a %s", kind.Value, kind.Type)}
		}
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the value: give one to a line")
	}
	return nil
}

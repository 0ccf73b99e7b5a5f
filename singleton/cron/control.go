//writ:core

package cron

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
	"unicode"

	"github.com/writ-io/writ/lease"
)

// ControlPrefix and the name of a job make the name of the resource whose checkpoint is the job's control document.
const ControlPrefix = "writ.jobs/"

// ControlVersion is the version of the control document that this package writes, and the only one that it reads.
const ControlVersion = 1

const (
	// MaxTriggers is how many triggers a control document holds.
	MaxTriggers = 16
	// TriggerWindow is how old a trigger may be when it is run.
	TriggerWindow = time.Hour
	// MaxNoteBytes bounds the note of a pause.
	MaxNoteBytes = 512
)

// Control is what people want of a job. Whoever changes it holds the resource meanwhile.
type Control struct {
	Version  int       `json:"version"`
	Pause    *Pause    `json:"pause,omitempty"`
	Triggers []Trigger `json:"triggers,omitempty"`
}

// Pause has slots that fall due skipped; what runs goes on, and triggers run.
type Pause struct {
	Note string    `json:"note,omitempty"`
	By   string    `json:"by,omitempty"`
	At   time.Time `json:"at"`
}

// Trigger asks for one run, at once.
type Trigger struct {
	ID string    `json:"id"`
	By string    `json:"by,omitempty"`
	At time.Time `json:"at"`
}

// ParseControl reads a control document. Nothing at all is a control document that wants nothing. Errors: INVALID, naming
// the field "control".
func ParseControl(data []byte) (Control, error) {
	if len(data) == 0 {
		return Control{Version: ControlVersion}, nil
	}
	const fix = "write it by pausing, resuming or triggering the job"
	var head struct {
		Version *int `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil || head.Version == nil {
		return Control{}, lease.Invalid("control", "is not a control document of a job", fix)
	}
	if *head.Version != ControlVersion {
		return Control{}, lease.Invalid("control", fmt.Sprintf("has version %d, and this program knows %d", *head.Version, ControlVersion),
			"upgrade this program; the document was left as it is")
	}
	var c Control
	if err := json.Unmarshal(data, &c); err != nil {
		return Control{}, lease.Invalid("control", "cannot be read: "+clip(err.Error()), fix)
	}
	if len(c.Triggers) > MaxTriggers {
		return Control{}, lease.Invalid("control", fmt.Sprintf("has %d triggers", len(c.Triggers)), fix)
	}
	for i, t := range c.Triggers {
		if !writable(t.At) {
			return Control{}, lease.Invalid("control", "has a trigger in a year that cannot be written", fix)
		}
		if !idUsable(t.ID) || slices.ContainsFunc(c.Triggers[:i], func(o Trigger) bool { return o.ID == t.ID }) {
			return Control{}, lease.Invalid("control", fmt.Sprintf("has the trigger id %q", clip(t.ID)), fix)
		}
	}
	return c, nil
}

// Encode writes a control document.
func (c Control) Encode() []byte {
	c.Version = ControlVersion
	data, err := json.Marshal(c)
	if err != nil {
		panic(fmt.Sprintf("cron: a control document cannot be written: %v", err))
	}
	return data
}

// WithPause returns the document with a pause in it. A job that is paused stays so, with the new note. Errors: INVALID for
// a note that is too long.
func (c Control) WithPause(p Pause) (Control, error) {
	if len(p.Note) > MaxNoteBytes {
		return c, lease.Invalid("note", fmt.Sprintf("is %d bytes long", len(p.Note)), fmt.Sprintf("use at most %d", MaxNoteBytes))
	}
	p.By = clip(p.By)
	c.Pause = &p
	return c, nil
}

// WithTrigger returns the document with a trigger in it; one that is there already changes nothing. Triggers that have
// lapsed go. Errors: INVALID for an id that cannot be used; LIMIT if there are [MaxTriggers] within [TriggerWindow].
func (c Control) WithTrigger(t Trigger) (Control, error) {
	if !idUsable(t.ID) {
		return c, lease.Invalid("id", fmt.Sprintf("is %q", clip(t.ID)), "use 1 to 64 printable characters without blanks")
	}
	t.By = clip(t.By)
	var kept []Trigger
	for _, o := range c.Triggers {
		if o.ID == t.ID {
			return c, nil
		}
		if t.At.Sub(o.At) <= TriggerWindow {
			kept = append(kept, o)
		}
	}
	if len(kept) >= MaxTriggers {
		return c, lease.Errorf(lease.ReasonLimit, "the job was triggered %d times within %v", len(kept), TriggerWindow)
	}
	c.Triggers = append(kept, t)
	return c, nil
}

func idUsable(id string) bool {
	if id == "" || len(id) > lease.MaxRequestIDBytes {
		return false
	}
	for _, r := range id {
		if !unicode.IsGraphic(r) || unicode.IsSpace(r) {
			return false
		}
	}
	return true
}

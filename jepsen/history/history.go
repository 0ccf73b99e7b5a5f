package history

import (
	"fmt"
	"math"
	"time"
)

// Kind is what was asked.
type Kind uint8

// The kinds.
const (
	Acquire Kind = iota + 1
	Renew
	Release
	Checkpoint
	Get
)

func (k Kind) String() string {
	switch k {
	case Acquire:
		return "acquire"
	case Renew:
		return "renew"
	case Release:
		return "release"
	case Checkpoint:
		return "checkpoint"
	case Get:
		return "get"
	}
	return fmt.Sprintf("kind %d", k)
}

// Outcome is what was answered.
type Outcome uint8

// The outcomes.
const (
	// OK: the grant, the present state, or the acknowledgement.
	OK Outcome = iota + 1
	// Held: another grant is in the way; the answer names it.
	Held
	// Expired, Released and NotHolder: the grant is over, or is not the caller's.
	Expired
	Released
	NotHolder
	// NotFound: nothing is known of the resource.
	NotFound
	// Refused: the servers promise that nothing was done.
	Refused
	// Unknown: it may be done, now or later, or not.
	Unknown
	// Absurd: no server may answer this to what is asked here.
	Absurd
)

func (o Outcome) String() string {
	switch o {
	case OK:
		return "ok"
	case Held:
		return "held"
	case Expired:
		return "expired"
	case Released:
		return "released"
	case NotHolder:
		return "not holder"
	case NotFound:
		return "not found"
	case Refused:
		return "refused"
	case Unknown:
		return "unknown"
	case Absurd:
		return "absurd"
	}
	return fmt.Sprintf("outcome %d", o)
}

// Op is one call. Every acquisition must have an Instance of its own, which later calls under its grant repeat: the name
// tells which call a grant came from. Checkpoints must differ from each other.
type Op struct {
	Client   int
	Kind     Kind
	Resource string
	Instance string        // who asks; empty for Get
	Token    uint64        // under which; not for Acquire and Get
	TTL      time.Duration // that is asked for or held under; for Acquire and Renew
	Data     string        // to be stored; for Checkpoint

	// Call is a moment before the request was sent, Return one after its answer was there, both since the start of the
	// recording.
	Call, Return time.Duration

	Outcome Outcome
	Saw     Sight
	// Detail is what was answered, for people.
	Detail string
}

// Sight is what an answer shows of the resource: with OK for Acquire the grant, with Held the grant in the way, and with OK
// for Get the present state.
type Sight struct {
	Token  uint64 // of the present or last grant
	Holder string // instance that it was granted to
	Free   bool   // for Get: it is over
	End    End    // for Get, when Free
	Data   string // for Acquire: the checkpoint
}

// End is how a grant ended.
type End uint8

// The ends.
const (
	NotEnded End = iota
	EndReleased
	EndExpired
)

func (e End) String() string {
	switch e {
	case NotEnded:
		return ""
	case EndReleased:
		return "released"
	case EndExpired:
		return "expired"
	}
	return fmt.Sprintf("end %d", e)
}

// open is the return of a call that may have its effect at any time after it.
const open = time.Duration(math.MaxInt64)

func (o Op) String() string {
	ended := "open"
	if o.Return != open {
		ended = ms(o.Return)
	}
	text := fmt.Sprintf("%9s – %9s  client %d  %-10s %s", ms(o.Call), ended, o.Client, o.Kind, o.Resource)
	if o.Instance != "" {
		text += " as " + o.Instance
	}
	if o.Token != 0 {
		text += fmt.Sprintf(" under %d", o.Token)
	}
	if o.Data != "" {
		text += " " + o.Data
	}
	text += " → " + o.Outcome.String()
	if o.Saw != (Sight{}) {
		text += fmt.Sprintf(" %+v", o.Saw)
	}
	if o.Detail != "" {
		text += " (" + o.Detail + ")"
	}
	return text
}

func ms(d time.Duration) string { return fmt.Sprintf("%.3f", float64(d)/float64(time.Millisecond)) }

//writ:core

package cron

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/writ-io/writ/lease"
)

// CatchUp says what becomes of slots that were missed, because nothing held the job or nothing ran in time.
type CatchUp string

// The ways to catch up.
const (
	// CatchUpNone: they are skipped. A slot whose holder died is not run again either.
	CatchUpNone CatchUp = "none"
	// CatchUpLatest: the latest is run, if it is within the window.
	CatchUpLatest CatchUp = "latest"
	// CatchUpAll: the latest Max of those within the window are run, the oldest first.
	CatchUpAll CatchUp = "all"
)

// Overlap says what becomes of a slot that falls due while another runs.
type Overlap string

// The ways to overlap.
const (
	// OverlapSkip: it is skipped.
	OverlapSkip Overlap = "skip"
	// OverlapBufferOne: it runs afterwards; others that fall due before then are skipped.
	OverlapBufferOne Overlap = "buffer_one"
	// OverlapCancelOther: what runs is cancelled, and the slot runs once that has returned.
	OverlapCancelOther Overlap = "cancel_other"
)

// Defaults and limits of a [Policy].
const (
	DefaultWindow      = time.Hour
	DefaultMax         = 10
	DefaultMaxAttempts = 5
	MaxWindow          = 366 * 24 * time.Hour
	MaxBacklog         = 100
	MaxJitter          = time.Hour
	MaxMaxAttempts     = 100
	// Punctual is how late a slot may begin and not be missed.
	Punctual = 5 * time.Second
)

// Policy says how a job treats slots that are missed or overlap. The zero value is the default.
type Policy struct {
	// CatchUp; empty means CatchUpLatest.
	CatchUp CatchUp
	// Window is how old a slot may be when it is run: up to 366 days, 0 means an hour. It bounds further attempts too.
	// CatchUpNone has none.
	Window time.Duration
	// Max is how many slots may wait under CatchUpAll: 1 to 100, 0 means 10.
	Max int
	// Overlap; empty means OverlapSkip. Under CatchUpAll slots that fall due while older ones wait join them.
	Overlap Overlap
	// Jitter delays each slot by up to so much, by an amount that depends on nothing but the job and the slot: up to an hour.
	Jitter time.Duration
	// MaxAttempts is how often a slot is run, if its holders die: 1 to 100, 0 means 5.
	MaxAttempts int
}

// WithDefaults fills in what is left out.
func (p Policy) WithDefaults() Policy {
	if p.CatchUp == "" {
		p.CatchUp = CatchUpLatest
	}
	if p.Window == 0 && p.CatchUp != CatchUpNone {
		p.Window = DefaultWindow
	}
	if p.Max == 0 && p.CatchUp == CatchUpAll {
		p.Max = DefaultMax
	}
	if p.Overlap == "" {
		p.Overlap = OverlapSkip
	}
	if p.MaxAttempts == 0 {
		p.MaxAttempts = DefaultMaxAttempts
	}
	return p
}

// Validate reports the first field that cannot be used as an INVALID *lease.Error that names it.
func (p Policy) Validate() error {
	switch p = p.WithDefaults(); {
	case p.CatchUp != CatchUpNone && p.CatchUp != CatchUpLatest && p.CatchUp != CatchUpAll:
		return lease.Invalid("catch_up", fmt.Sprintf("is %q", string(p.CatchUp)), "use none, latest or all")
	case p.Window < 0 || p.Window > MaxWindow:
		return lease.Invalid("window", fmt.Sprintf("is %v", p.Window), "use up to 366 days, or leave it out for an hour")
	case p.Window != 0 && p.CatchUp == CatchUpNone:
		return lease.Invalid("window", "is set, and missed slots are not run", "leave it out, or catch up")
	case p.Max < 0 || p.Max > MaxBacklog || p.Max != 0 && p.CatchUp != CatchUpAll:
		return lease.Invalid("max", fmt.Sprintf("is %d", p.Max), "use 1 to 100 where all are caught up with, and leave it out elsewhere")
	case p.Overlap != OverlapSkip && p.Overlap != OverlapBufferOne && p.Overlap != OverlapCancelOther:
		return lease.Invalid("overlap", fmt.Sprintf("is %q", string(p.Overlap)), "use skip, buffer_one or cancel_other")
	case p.Jitter < 0 || p.Jitter > MaxJitter:
		return lease.Invalid("jitter", fmt.Sprintf("is %v", p.Jitter), "use up to an hour")
	case p.MaxAttempts < 1 || p.MaxAttempts > MaxMaxAttempts:
		return lease.Invalid("max_attempts", fmt.Sprintf("is %d", p.MaxAttempts), "use 1 to 100")
	}
	return nil
}

// policyJSON is a Policy in a document; durations are in milliseconds.
type policyJSON struct {
	CatchUp     CatchUp `json:"catch_up"`
	WindowMs    int64   `json:"window_ms,omitempty"`
	Max         int     `json:"max,omitempty"`
	Overlap     Overlap `json:"overlap"`
	JitterMs    int64   `json:"jitter_ms,omitempty"`
	MaxAttempts int     `json:"max_attempts,omitempty"`
}

// MarshalJSON writes durations as milliseconds.
func (p Policy) MarshalJSON() ([]byte, error) {
	return json.Marshal(policyJSON{p.CatchUp, p.Window.Milliseconds(), p.Max, p.Overlap, p.Jitter.Milliseconds(), p.MaxAttempts})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (p *Policy) UnmarshalJSON(data []byte) error {
	var j policyJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	const most = int64(MaxWindow / time.Millisecond) // more is out of every range, and would overflow
	*p = Policy{
		CatchUp: j.CatchUp, Window: time.Duration(min(max(j.WindowMs, -1), most+1)) * time.Millisecond, Max: j.Max, Overlap: j.Overlap,
		Jitter: time.Duration(min(max(j.JitterMs, -1), most)) * time.Millisecond, MaxAttempts: j.MaxAttempts,
	}
	return nil
}

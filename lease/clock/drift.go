package clock

import (
	"fmt"
	"math/bits"
	"time"
)

const (
	// DefaultDriftPPM is the bound ρ on how far a clock's rate may be from real
	// time, in parts per million: 500 ppm is 1.8 s an hour, the most that ntpd
	// slews and several times what a bad quartz drifts. The kernel slews the
	// clock of this package too, and chrony may do so far faster (its default
	// maxslewrate is over 83,000 ppm): set maxslewrate to ρ or less.
	DefaultDriftPPM = 500

	// DefaultMargin is taken off a holder's window besides the drift, for the
	// time between looking at the clock and acting on what it said.
	DefaultMargin = 10 * time.Millisecond

	// million is the denominator of parts per million.
	million = 1_000_000
)

// Shrink returns how long, by its own clock and counted from before it sent the
// request, a holder may believe in a lease of ttl:
//
//	floor(ttl · (1−ρ) / (1+ρ)) − margin        ρ = rhoPPM / 1,000,000
//
// One side shrinks and the other waits the plain time. The coordinator waits
// ttl by a clock that runs at most (1+ρ) fast, so at least ttl/(1+ρ) of real
// time, and it starts after the request was sent. The holder's clock runs at
// least (1−ρ), so a window w lasts at most w/(1−ρ) of real time. The window
// ends first when w/(1−ρ) ≤ ttl/(1+ρ); the formula is the longest such w, less
// the margin. (The argument is the one for leases under bounded clock rates in
// Gray and Cheriton, "Leases: An Efficient Fault-Tolerant Mechanism for
// Distributed File Cache Consistency", SOSP 1989.) Guards use the same formula
// over their guard lease.
//
// The result is never negative; zero means "believe nothing". Arguments that
// have no sense (ttl ≤ 0, rhoPPM outside 0..999,999, margin < 0) give zero too,
// which is the safe way to be wrong; [Drift.Validate] reports them.
// No ttl overflows.
func Shrink(ttl time.Duration, rhoPPM int, margin time.Duration) time.Duration {
	if ttl <= 0 || rhoPPM < 0 || rhoPPM >= million || margin < 0 {
		return 0
	}
	// The product needs up to 83 bits. Its high word is below million, hence
	// below the divisor, so Div64 cannot overflow.
	hi, lo := bits.Mul64(uint64(ttl), million-uint64(rhoPPM))
	quotient, _ := bits.Div64(hi, lo, million+uint64(rhoPPM))
	return max(0, time.Duration(quotient)-margin)
}

// Drift is what a deployment assumes of its clocks. The zero value assumes
// perfect clocks and takes no margin; start from [DefaultDrift].
type Drift struct {
	// PPM bounds how far a clock's rate may be from real time, in parts per
	// million: 0 to 999,999.
	PPM int
	// Margin is taken off every window of belief besides the drift. Not
	// negative.
	Margin time.Duration
}

// DefaultDrift returns [DefaultDriftPPM] and [DefaultMargin].
func DefaultDrift() Drift { return Drift{PPM: DefaultDriftPPM, Margin: DefaultMargin} }

// Validate reports a value that is out of its range.
func (d Drift) Validate() error {
	if d.PPM < 0 || d.PPM >= million {
		return fmt.Errorf("clock: drift of %d ppm is out of range: use 0 to %d, normally %d", d.PPM, million-1, DefaultDriftPPM)
	}
	if d.Margin < 0 {
		return fmt.Errorf("clock: margin of %v is negative: use 0 or more, normally %v", d.Margin, DefaultMargin)
	}
	return nil
}

// BelieveUntil returns the instant at which belief ends in what a request,
// about to be sent at sent, confers for ttl: sent + Shrink(ttl). At that
// instant belief is over. The result equals sent when nothing may be believed.
func (d Drift) BelieveUntil(sent Instant, ttl time.Duration) Instant {
	return sent.Add(Shrink(ttl, d.PPM, d.Margin))
}

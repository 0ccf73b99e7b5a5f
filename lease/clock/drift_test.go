package clock_test

import (
	"math"
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/writ-io/writ/lease/clock"
)

const million = 1_000_000

func TestShrink(t *testing.T) {
	cases := []struct {
		name   string
		ttl    time.Duration
		ppm    int
		margin time.Duration
		want   time.Duration
	}{
		{"default", 10 * time.Second, 500, 10 * time.Millisecond, 9_980_004_997},
		{"perfect clocks", time.Minute, 0, 0, time.Minute},
		{"a day", 24 * time.Hour, 500, 0, 86_313_643_178_410},
		{"longest ttl", math.MaxInt64, 0, 0, math.MaxInt64},
		{"longest ttl with drift", math.MaxInt64, 500, 0, 9_214_153_274_199_248_794},
		{"margin eats it all", 5 * time.Millisecond, 500, 10 * time.Millisecond, 0},
		{"worst clocks", time.Hour, million - 1, 0, 1_800_000},
		{"no ttl", 0, 500, 0, 0},
		{"negative ttl", -time.Second, 500, 0, 0},
		{"negative drift", time.Second, -1, 0, 0},
		{"drift too large", time.Second, million, 0, 0},
		{"negative margin", time.Second, 500, -1, 0},
	}
	for _, c := range cases {
		if got := clock.Shrink(c.ttl, c.ppm, c.margin); got != c.want {
			t.Errorf("%s: Shrink(%d, %d, %d) = %d, want %d", c.name, c.ttl, c.ppm, c.margin, got, c.want)
		}
	}
}

// rate draws a clock rate in [1−ρ, 1+ρ]; the ends, where bugs show, come often.
func rate(t *rapid.T, ppm int, label string) *big.Rat {
	const fine = 1000
	offset := rapid.OneOf(
		rapid.SampledFrom([]int64{-int64(ppm) * fine, int64(ppm) * fine, 0}),
		rapid.Int64Range(-int64(ppm)*fine, int64(ppm)*fine),
	).Draw(t, label)
	return big.NewRat(million*fine+offset, million*fine)
}

// S4: a holder's window, in real time, is over when the coordinator's ttl is.
func TestHolderStopsBelievingBeforeTheCoordinatorFrees(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ppm := rapid.IntRange(0, 200_000).Draw(t, "ppm")
		ttl := time.Duration(rapid.Int64Range(1, int64(24*time.Hour)).Draw(t, "ttl"))
		margin := time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "margin"))
		holder, coordinator := rate(t, ppm, "holder"), rate(t, ppm, "coordinator")
		delay := rapid.Int64Range(0, int64(time.Minute)).Draw(t, "delay") // sent → taken in

		window := clock.Shrink(ttl, ppm, margin)
		if window < 0 {
			t.Fatalf("window of %v is negative", window)
		}
		beliefEnds := new(big.Rat).Quo(new(big.Rat).SetInt64(int64(window)), holder)
		freed := new(big.Rat).Quo(new(big.Rat).SetInt64(int64(ttl)), coordinator)
		freed.Add(freed, new(big.Rat).SetInt64(delay))
		if beliefEnds.Cmp(freed) > 0 {
			t.Fatalf("holder believes until %s, coordinator frees at %s", beliefEnds.FloatString(3), freed.FloatString(3))
		}
	})
}

// The window is the longest safe one: a nanosecond more would overlap at the
// extreme rates.
func TestShrinkGivesNothingAway(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ppm := rapid.IntRange(0, million-1).Draw(t, "ppm")
		ttl := time.Duration(rapid.Int64Range(1, math.MaxInt64).Draw(t, "ttl"))
		window := int64(clock.Shrink(ttl, ppm, 0))

		// Exact: window = floor(ttl·(million−ppm)/(million+ppm)).
		want := new(big.Int).Mul(big.NewInt(int64(ttl)), big.NewInt(million-int64(ppm)))
		want.Quo(want, big.NewInt(million+int64(ppm)))
		if want.Cmp(big.NewInt(window)) != 0 {
			t.Fatalf("Shrink(%d, %d, 0) = %d, want %s", ttl, ppm, window, want)
		}
	})
}

func TestDriftValidate(t *testing.T) {
	if err := clock.DefaultDrift().Validate(); err != nil {
		t.Errorf("default: %v", err)
	}
	for _, d := range []clock.Drift{{PPM: -1}, {PPM: million}, {Margin: -1}} {
		if d.Validate() == nil {
			t.Errorf("%+v: accepted", d)
		}
		if got := d.BelieveUntil(7, time.Hour); got != 7 {
			t.Errorf("%+v: believes until %d, want 7", d, got)
		}
	}
}

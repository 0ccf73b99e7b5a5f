package world

import (
	"math"
	"time"
)

// Dice is a source of random numbers for one purpose. Its n-th number is a hash of the seed, the purpose and n.
type Dice struct {
	key   uint64
	count uint64
}

// Dice makes a source for a purpose, such as "link" and the numbers of its ends. The same purpose gives the same numbers.
func (w *World) Dice(purpose string, ids ...uint64) *Dice { return NewDice(w.seed, purpose, ids...) }

// NewDice is [World.Dice] without a world.
func NewDice(seed uint64, purpose string, ids ...uint64) *Dice {
	key := mix(seed, hashString(purpose))
	for _, id := range ids {
		key = mix(key, id+1)
	}
	return &Dice{key: key}
}

// Uint64 draws 64 bits.
func (d *Dice) Uint64() uint64 {
	d.count++
	state := d.key + d.count*0xa0761d6478bd642f // as in wyrand: neighbours differ in every bit
	return mix(state, state^0xe7037ed1a0b428db)
}

// Intn draws 0 to n-1; n is above 0.
func (d *Dice) Intn(n int) int { return int(d.Uint64() % uint64(n)) }

// Float draws from 0 up to, and not including, 1.
func (d *Dice) Float() float64 { return float64(d.Uint64()>>11) / (1 << 53) }

// Chance is true with a probability in thousandths.
func (d *Dice) Chance(permille int) bool { return permille > 0 && d.Intn(1000) < permille }

// Between draws a duration from low to high, both included.
func (d *Dice) Between(low, high time.Duration) time.Duration {
	if high <= low {
		return low
	}
	return low + time.Duration(d.Uint64()%uint64(high-low+1))
}

// About draws an exponentially distributed duration with that mean, at most ten times it.
func (d *Dice) About(mean time.Duration) time.Duration {
	// Logarithms may differ in the last bit between machines: whole microseconds do not.
	x := min(-math.Log(1-d.Float()), 10)
	return (time.Duration(x*float64(mean/time.Microsecond)) + 1) * time.Microsecond
}

// Read fills b, and so makes Dice an io.Reader that never fails.
func (d *Dice) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(d.Uint64() >> 32)
	}
	return len(b), nil
}

package world_test

import (
	"fmt"
	"io"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/writ-io/writ/sim/world"
)

func draws(d *world.Dice) (numbers [8]uint64) {
	for i := range numbers {
		numbers[i] = d.Uint64()
	}
	return numbers
}

// One purpose has one sequence of numbers, whatever else is drawn in between and whoever draws.
func TestDiceOfOnePurpose(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed, purpose := rapid.Uint64().Draw(t, "seed"), rapid.String().Draw(t, "purpose")
		ids := rapid.SliceOfN(rapid.Uint64(), 0, 3).Draw(t, "ids")
		want := draws(world.NewDice(seed, purpose, ids...))
		w := world.New(seed)
		mine, other := w.Dice(purpose, ids...), w.Dice(purpose+"'", ids...)
		for i := range want {
			for range rapid.IntRange(0, 3).Draw(t, "draws of another") {
				other.Uint64()
			}
			if got := mine.Uint64(); got != want[i] {
				t.Fatalf("number %d is %d, and alone it was %d", i, got, want[i])
			}
		}
	})
}

func TestDiceOfUnlikePurposes(t *testing.T) {
	seen := make(map[uint64]string)
	for name, dice := range map[string]*world.Dice{
		"link":               world.NewDice(1, "link"),
		"link, another seed": world.NewDice(2, "link"),
		"disk":               world.NewDice(1, "disk"),
		"link 0":             world.NewDice(1, "link", 0),
		"link 0 0":           world.NewDice(1, "link", 0, 0),
		"link 1":             world.NewDice(1, "link", 1),
		"link 1 2":           world.NewDice(1, "link", 1, 2),
		"link 2 1":           world.NewDice(1, "link", 2, 1),
		"nothing":            world.NewDice(1, ""),
	} {
		for _, n := range draws(dice) {
			if other, ok := seen[n]; ok {
				t.Errorf("%s and %s draw the same number", name, other)
			}
			seen[n] = name
		}
	}
}

// Numbers are spread evenly over small moduli: those of one purpose, the first ones of neighbouring purposes as there is one
// for every link, and the first ones of neighbouring seeds.
func TestDiceAreFair(t *testing.T) {
	const perFace = 500
	long := world.NewDice(1, "long")
	for name, draw := range map[string]func(i uint64) uint64{
		"one purpose":        func(uint64) uint64 { return long.Uint64() },
		"neighbouring ids":   func(i uint64) uint64 { return world.NewDice(1, "link", i).Uint64() },
		"pairs of ids":       func(i uint64) uint64 { return world.NewDice(1, "link", i%100, i/100).Uint64() },
		"neighbouring seeds": func(i uint64) uint64 { return world.NewDice(i, "link").Uint64() },
	} {
		for _, faces := range []uint64{2, 3, 4, 6, 7, 10, 16, 100} {
			t.Run(fmt.Sprint(name, " modulo ", faces), func(t *testing.T) {
				count := make([]float64, faces)
				pairs := make([]float64, faces*faces) // of a number and the one after it
				last := uint64(0)
				for i := range faces * perFace {
					n := draw(i) % faces
					count[n]++
					pairs[last*faces+n]++
					last = n
				}
				chiSquare(t, count)
				if faces <= 16 {
					chiSquare(t, pairs)
				}
			})
		}
	}
}

// chiSquare holds counts to an even spread. Draws are the same each time, so that it cannot fail by chance.
func chiSquare(t *testing.T, count []float64) {
	t.Helper()
	var total, sum float64
	for _, n := range count {
		total += n
	}
	want := total / float64(len(count))
	for _, n := range count {
		sum += (n - want) * (n - want) / want
	}
	// The statistic has mean k and variance 2k; it is about normal for large k, and has a longer tail for small ones.
	k := float64(len(count) - 1)
	if off := (sum - k) / math.Sqrt(2*k); off > 5 || k > 5 && off < -3.5 {
		t.Errorf("chi-square is %.1f with %.0f degrees of freedom", sum, k)
	}
}

func TestDiceRanges(t *testing.T) {
	d := world.NewDice(1, "ranges")
	const rolls = 100_000
	var low, high, chance int
	var floats float64
	var about, longest time.Duration
	for range rolls {
		switch between := d.Between(3, 7); {
		case between < 3 || between > 7:
			t.Fatalf("%d is not from 3 to 7", between)
		case between == 3:
			low++
		case between == 7:
			high++
		}
		if d.Chance(0) || d.Chance(-5) || !d.Chance(1000) {
			t.Fatal("what cannot be was, or what must be was not")
		}
		if d.Chance(30) {
			chance++
		}
		if f := d.Float(); f < 0 || f >= 1 {
			t.Fatalf("%v is not from 0 to 1", f)
		} else {
			floats += f
		}
		a := d.About(time.Second)
		about, longest = about+a, max(longest, a)
		if a <= 0 || a > 10*time.Second+time.Microsecond {
			t.Fatalf("%v is about a second", a)
		}
	}
	near := func(what string, got, want float64) {
		if math.Abs(got-want) > want/20 {
			t.Errorf("%s: %v, want about %v", what, got, want)
		}
	}
	near("the lowest", float64(low), rolls/5)
	near("the highest", float64(high), rolls/5)
	near("a chance of 30 in 1000", float64(chance), rolls*30/1000)
	near("the mean of floats", floats/rolls, 0.5)
	near("the mean of about a second", (about / rolls).Seconds(), 1)
	if longest < 7*time.Second {
		t.Errorf("of about a second is %v at most", longest)
	}
	if d.Between(5, 5) != 5 || d.Between(5, 4) != 5 || d.Intn(1) != 0 {
		t.Error("where there is one choice, another one was made")
	}
}

func TestDiceRead(t *testing.T) {
	read := func(sizes ...int) []byte {
		d := world.NewDice(1, "read")
		var all []byte
		for _, n := range sizes {
			b := make([]byte, n)
			if _, err := io.ReadFull(d, b); err != nil {
				t.Fatal(err)
			}
			all = append(all, b...)
		}
		return all
	}
	if a, b := read(64), read(1, 30, 33); string(a) != string(b) {
		t.Errorf("read in one piece and in three:\n%x\n%x", a, b)
	}
	count := make([]float64, 256)
	for _, b := range read(256 * 500) {
		count[b]++
	}
	chiSquare(t, count)
}

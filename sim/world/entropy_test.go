package world_test

import (
	"bytes"
	"crypto/rand"
	"math/big"
	"sync"
	"testing"

	"github.com/writ-io/writ/sim/world"
)

const drawn = 16

// entropy draws from crypto/rand, as a library does that knows nothing of the simulation.
func entropy(t *testing.T) []byte {
	t.Helper()
	b := make([]byte, drawn)
	if _, err := rand.Read(b); err != nil {
		t.Error(err)
	}
	return b
}

// want is what the n-th draw from a dice is to be, from 0.
func want(t *testing.T, seed uint64, n int) []byte {
	t.Helper()
	d := world.NewDice(seed, "entropy")
	b := make([]byte, drawn)
	for range n + 1 {
		if _, err := d.Read(b); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// Two goroutines draw each from its own dice, while a third one draws what nobody can foresee.
func TestSeededByGoroutine(t *testing.T) {
	const rounds = 50
	got := make([][rounds][]byte, 3)
	var running sync.WaitGroup
	turns := make([]chan bool, 3) // they draw in turns, each between draws of the others
	for i := range turns {
		turns[i] = make(chan bool, 1)
	}
	for i := range got {
		draw := func() {
			for n := range rounds {
				<-turns[i]
				got[i][n] = entropy(t)
				turns[(i+1)%3] <- true
			}
		}
		running.Go(func() {
			if i == 2 {
				draw()
			} else {
				world.Seeded(world.NewDice(uint64(i), "entropy"), draw)
			}
		})
	}
	turns[0] <- true
	running.Wait()
	seen := make(map[string]bool)
	for n := range rounds {
		for seed := range uint64(2) {
			expected := want(t, seed, n)
			if !bytes.Equal(got[seed][n], expected) {
				t.Errorf("draw %d from dice %d is %x, want %x", n, seed, got[seed][n], expected)
			}
			seen[string(expected)] = true
		}
	}
	for n, b := range got[2] {
		if seen[string(b)] {
			t.Errorf("draw %d without dice is %x, which another one was too", n, b)
		}
		seen[string(b)] = true
	}
}

// The functions of crypto/rand that raft uses draw from the dice too.
func TestSeededInt(t *testing.T) {
	numbers := func() (all []int64) {
		world.Seeded(world.NewDice(1, "entropy"), func() {
			for range 20 {
				n, err := rand.Int(rand.Reader, big.NewInt(1<<40))
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, n.Int64())
			}
		})
		return all
	}
	first, second := numbers(), numbers()
	for i := range first {
		if first[i] != second[i] {
			t.Errorf("number %d is %d, and then %d", i, first[i], second[i])
		}
	}
}

func TestSeededWithinSeeded(t *testing.T) {
	check := func(what string, seed uint64, n int) {
		t.Helper()
		if got, expected := entropy(t), want(t, seed, n); !bytes.Equal(got, expected) {
			t.Errorf("%s: %x, want %x", what, got, expected)
		}
	}
	fail := func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		world.Seeded(world.NewDice(3, "entropy"), func() {
			check("before a panic", 3, 0)
			panic("on purpose")
		})
	}
	world.Seeded(world.NewDice(1, "entropy"), func() {
		check("outside", 1, 0)
		world.Seeded(world.NewDice(2, "entropy"), func() { check("within", 2, 0) })
		check("outside again", 1, 1)
		fail()
		check("after a panic within", 1, 2)
	})
	fail()
	for n := range 3 {
		got := entropy(t)
		for seed := range uint64(4) {
			for m := range 5 {
				if bytes.Equal(got, want(t, seed, m)) {
					t.Errorf("draw %d after all is number %d of dice %d", n, m, seed)
				}
			}
		}
	}
}

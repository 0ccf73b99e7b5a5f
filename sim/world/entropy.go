package world

import (
	"bytes"
	"crypto/rand"
	"io"
	"runtime"
	"sync"
)

// Libraries that the simulator drives draw from crypto/rand on their own: raft draws its election timeouts there. While a
// goroutine is within Seeded, what it draws comes from a Dice; every other goroutine gets what it always got. A goroutine
// finds its Dice by its number, which costs a microsecond: such draws are rare.
var entropy struct {
	once  sync.Once
	real  io.Reader
	mu    sync.RWMutex
	dices map[string]*Dice // by goroutine
}

// Seeded calls do, and lets what do draws from [crypto/rand.Reader] come from dice.
func Seeded(dice *Dice, do func()) {
	entropy.once.Do(func() {
		entropy.real, entropy.dices = rand.Reader, make(map[string]*Dice)
		rand.Reader = router{}
	})
	me := goroutine()
	entropy.mu.Lock()
	before := entropy.dices[me]
	entropy.dices[me] = dice
	entropy.mu.Unlock()
	defer func() {
		entropy.mu.Lock()
		defer entropy.mu.Unlock()
		if before != nil {
			entropy.dices[me] = before
		} else {
			delete(entropy.dices, me)
		}
	}()
	do()
}

type router struct{}

func (router) Read(b []byte) (int, error) {
	entropy.mu.RLock()
	var dice *Dice
	if len(entropy.dices) > 0 {
		dice = entropy.dices[goroutine()]
	}
	entropy.mu.RUnlock()
	if dice == nil {
		return entropy.real.Read(b)
	}
	return dice.Read(b)
}

// goroutine is the number of this goroutine, as text.
func goroutine() string {
	var buf [64]byte
	head := buf[:runtime.Stack(buf[:], false)]
	head = bytes.TrimPrefix(head, []byte("goroutine "))
	number, _, _ := bytes.Cut(head, []byte(" "))
	return string(number)
}

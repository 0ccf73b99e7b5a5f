//go:build linux

package nemesis

import (
	"math/rand/v2"
	"slices"
)

// swarmMost is how many nemeses do harm at once at most.
const swarmMost = 4

// Swarm draws who does harm in a round, counted from 1. Every nemesis has its turn before one comes again. The same seed
// draws the same.
func Swarm(seed uint64, kinds []Kind, round int) []Kind {
	if len(kinds) == 0 {
		return nil
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	var order []int
	for n := 1; ; n++ {
		size := min(1+rng.IntN(swarmMost), len(kinds))
		for len(order) < size {
			order = append(order, rng.Perm(len(kinds))...)
		}
		drawn := order[:size]
		order = order[size:]
		if n < round {
			continue
		}
		var swarm []Kind
		for _, i := range slices.Compact(slices.Sorted(slices.Values(drawn))) {
			swarm = append(swarm, kinds[i])
		}
		return swarm
	}
}

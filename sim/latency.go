package sim

import (
	"slices"
	"time"
)

// Latency is how long acquisitions took that ended in a grant, from the first request on, waiting included.
type Latency struct {
	Count         int
	P50, P99, Max time.Duration
}

type latencies []time.Duration

// latencySamples bounds what is kept: the first so many tell enough.
const latencySamples = 100_000

func (l *latencies) add(d time.Duration) {
	if len(*l) < latencySamples {
		*l = append(*l, d)
	}
}

func (l latencies) summary() Latency {
	if len(l) == 0 {
		return Latency{}
	}
	sorted := slices.Sorted(slices.Values(l))
	at := func(permille int) time.Duration { return sorted[min(len(sorted)*permille/1000, len(sorted)-1)] }
	return Latency{Count: len(sorted), P50: at(500), P99: at(990), Max: sorted[len(sorted)-1]}
}

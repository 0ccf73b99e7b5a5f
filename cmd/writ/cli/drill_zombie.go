package cli

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

const (
	// zombieEvery is how often the zombie writes.
	zombieEvery = 250 * time.Millisecond
	// zombiePatience is how long guards have to let it through before: they learn of the shadow's token one after the other.
	zombiePatience = 10 * time.Second
)

// zombie goes on writing under the token that a shadow had, through each guard: canaries, which go no further.
type zombie struct {
	group *writv1.Group
	// write sends one canary through each guard.
	write func(context.Context) ([]*writv1.GuardVerdict, error)

	mu      sync.Mutex
	granted bool                            // guarded by mu; the other region has its token
	before  map[string]*writv1.GuardVerdict // guarded by mu; the best of each guard
	after   map[string]*writv1.GuardVerdict // guarded by mu; the worst of each guard, of writes that began when granted was set
}

func newZombie(a *app, shadow *writv1.Group) *zombie {
	z := &zombie{group: shadow, before: make(map[string]*writv1.GuardVerdict), after: make(map[string]*writv1.GuardVerdict)}
	f := verifyFlags{resource: shadow.GetSpec().GetResource(), token: shadow.GetToken(), quiet: true}
	z.write = func(ctx context.Context) ([]*writv1.GuardVerdict, error) { return a.canaries(ctx, f) }
	return z
}

// weight orders verdicts: a write that came through counts more than one that was refused, and that more than silence.
func weight(v *writv1.GuardVerdict) int {
	switch {
	case v == nil:
		return 0
	case v.GetAnswered() && !v.GetRefused():
		return 3
	case v.GetAnswered():
		return 2
	}
	return 1
}

// round writes once through each guard.
func (z *zombie) round(ctx context.Context) error {
	z.mu.Lock()
	into := z.before
	if z.granted {
		into = z.after
	}
	z.mu.Unlock()
	verdicts, err := z.write(ctx)
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, v := range verdicts {
		if weight(v) > weight(into[v.GetGuard()]) {
			into[v.GetGuard()] = v
		}
	}
	return err
}

// warmUp writes until each guard of the shadow has let it through, or has had its time.
func (z *zombie) warmUp(ctx context.Context) error {
	patience := time.NewTimer(zombiePatience)
	defer patience.Stop()
	ticker := time.NewTicker(zombieEvery)
	defer ticker.Stop()
	for {
		if err := z.round(ctx); err != nil {
			return err
		}
		if z.through() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-patience.C:
			return nil // it is judged
		case <-ticker.C:
		}
	}
}

// through reports whether every guard that the group names has let the zombie through.
func (z *zombie) through() bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, r := range z.group.GetSpec().GetRegions() {
		for _, guard := range r.GetGuards() {
			if weight(z.before[guard]) < weight(&writv1.GuardVerdict{Answered: true}) {
				return false
			}
		}
	}
	return len(z.before) > 0
}

// start goes on writing until stop is called, which waits for its end.
func (z *zombie) start(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		ticker := time.NewTicker(zombieEvery)
		defer ticker.Stop()
		for ctx.Err() == nil {
			_ = z.round(ctx) // the last round tells
			select {
			case <-ctx.Done():
			case <-ticker.C:
			}
		}
	})
	return func() {
		cancel()
		done.Wait()
	}
}

// follow takes note of the grant.
func (z *zombie) follow(p *writv1.Promotion) {
	if p.GetState() == writv1.PromotionState_PROMOTION_STATE_GRANTED || p.GetState() == writv1.PromotionState_PROMOTION_STATE_VERIFYING || slices.Contains(served, p.GetState()) {
		z.mu.Lock()
		z.granted = true
		z.mu.Unlock()
	}
}

func (z *zombie) verdicts() (before, after []*writv1.GuardVerdict) {
	z.mu.Lock()
	defer z.mu.Unlock()
	sorted := func(all map[string]*writv1.GuardVerdict) []*writv1.GuardVerdict {
		return slices.SortedFunc(maps.Values(all), func(x, y *writv1.GuardVerdict) int { return cmp.Compare(x.GetGuard(), y.GetGuard()) })
	}
	return sorted(z.before), sorted(z.after)
}

// nextOf waits for something new of a promotion.
func (a *app) nextOf(ctx context.Context, p *writv1.Promotion) (*writv1.Promotion, error) {
	return askRegions(ctx, a.each, writv1.RegionServiceClient.GetPromotion, &writv1.GetPromotionRequest{
		Id: p.GetId(), AfterRevision: p.GetRevision(), Wait: durationpb.New(followWait),
	})
}

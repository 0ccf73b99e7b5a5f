package s3fence

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
)

// race lets all rivals write to key at once, under the same condition, and answers how many the storage let through.
func (p *probe) race(ctx context.Context, key string, condition Condition) (winners int, err error) {
	var (
		wg    sync.WaitGroup
		start = make(chan struct{})
		wrote = make([]bool, p.cfg.Rivals)
		errs  = make([]error, p.cfg.Rivals)
	)
	for i := range p.cfg.Rivals {
		wg.Go(func() {
			<-start
			_, wrote[i], errs[i] = put(ctx, p.stores[i%len(p.stores)], key, "rival "+newNonce(), condition)
		})
	}
	close(start)
	wg.Wait()
	p.races++
	for _, w := range wrote {
		if w {
			winners++
		}
	}
	return winners, errors.Join(errs...)
}

// raceCreates lets several create one object.
func (p *probe) raceCreates(ctx context.Context) error {
	for range p.cfg.Rounds {
		winners, err := p.race(ctx, p.key(), Condition{Absent: true})
		if err != nil {
			return err
		}
		if winners != 1 {
			p.found(CheckCreateRace, "of %d who created one object at once, %d were told that they had", p.cfg.Rivals, winners)
		}
	}
	return nil
}

// raceWrites lets several replace one state, again and again.
func (p *probe) raceWrites(ctx context.Context) error {
	key := p.key()
	etag, wrote, err := put(ctx, p.stores[0], key, "start", Condition{Absent: true})
	if err != nil || !wrote {
		return err
	}
	for range p.cfg.Rounds {
		winners, err := p.race(ctx, key, Condition{Match: etag})
		if err != nil {
			return err
		}
		if winners != 1 {
			p.found(CheckMatchRace, "of %d who replaced the same state at once, %d were told that they had", p.cfg.Rivals, winners)
		}
		if _, etag, _, err = get(ctx, p.stores[0], key); err != nil {
			return err
		}
	}
	return nil
}

// raceReads reads an object while it is written. Bodies begin with a count, so that the reader can tell how old a body is,
// and the writer keeps which count each ETag stands for.
func (p *probe) raceReads(ctx context.Context) error {
	key := p.key()
	var (
		mu     sync.Mutex
		counts = make(map[string]int) // by ETag; under mu
		seen   []observation
	)
	write := func(count int, condition Condition) (string, error) {
		// Long enough that it does not arrive all at once.
		body := fmt.Sprintf("%d %s", count, strings.Repeat("x", 64<<10))
		etag, wrote, err := put(ctx, p.stores[0], key, body, condition)
		if err != nil || !wrote {
			return "", err
		}
		mu.Lock()
		counts[etag] = count
		mu.Unlock()
		return etag, nil
	}
	etag, err := write(0, Condition{Absent: true})
	if err != nil || etag == "" {
		return err
	}
	reads := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		var err error
		for running := true; running && err == nil; {
			select {
			case <-done:
				running = false
			default:
			}
			var o observation
			if o, err = p.observe(ctx, len(seen), key); err == nil {
				seen = append(seen, o)
			}
		}
		reads <- err
	}()
	for count := 1; count <= 2*p.cfg.Rounds && etag != "" && err == nil; count++ {
		etag, err = write(count, Condition{Match: etag})
		p.races++
	}
	close(done)
	if readErr := <-reads; err == nil {
		err = readErr
	}
	for _, o := range seen {
		if count, known := counts[o.etag]; !known || o.count < count {
			p.found(CheckReadRace, "it answered the body of write %d with the ETag of write %d", o.count, count)
		}
	}
	return err
}

// observation is what one read answered.
type observation struct {
	count int
	etag  string
}

func (p *probe) observe(ctx context.Context, i int, key string) (observation, error) {
	body, etag, _, err := get(ctx, p.stores[i%len(p.stores)], key)
	if err != nil {
		return observation{}, err
	}
	digits, _, _ := strings.Cut(body, " ")
	count, err := strconv.Atoi(digits)
	if err != nil {
		count = -1 // no body at all is older than any
	}
	return observation{count: count, etag: etag}, nil
}

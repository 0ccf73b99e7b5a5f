package s3fence

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/writ-io/writ/fence"
)

// errUnchanged is how mutation.apply says that nothing needs to be written.
var errUnchanged = errors.New("s3fence: unchanged")

// mutation is one change of one object.
type mutation struct {
	// apply makes the new content of the present one. It is called anew after each conflict.
	apply func(Item) (Item, error)
	// fenced: read the fence object first.
	fenced bool
	// foreign: take objects that were not written through this package.
	foreign bool
	// conflicted is told of each conflict, if set: what apply returned last will never be written.
	conflicted func()
}

// mutate reads, compares tokens, and writes under the condition that the object is still as it was read.
func (o *Objects) mutate(ctx context.Context, key string, token fence.Token, m mutation) (Item, error) {
	if err := checkToken(token); err != nil {
		return Item{}, err
	}
	for attempt := range o.cfg.Attempts {
		if err := pause(ctx, attempt); err != nil {
			return Item{}, err
		}
		item, err := o.tryMutate(ctx, key, token, m)
		if !errors.Is(err, ErrPrecondition) {
			return item, err
		}
		if m.conflicted != nil {
			m.conflicted()
		}
	}
	return Item{}, fmt.Errorf("%w: key %s: gave up after %d attempts", ErrContended, quote(key), o.cfg.Attempts)
}

// tryMutate answers ErrPrecondition if another writer was faster; nothing is written then.
func (o *Objects) tryMutate(ctx context.Context, key string, token fence.Token, m mutation) (Item, error) {
	if m.fenced {
		floor, err := o.Floor(ctx)
		if err != nil {
			return Item{}, fmt.Errorf("fence: %w", err)
		}
		if token < floor {
			return Item{}, o.stale(token, floor)
		}
	}
	cur, err := o.load(ctx, key)
	if err != nil {
		return Item{}, err
	}
	if token < cur.Token {
		return Item{}, o.stale(token, cur.Token)
	}
	if cur.foreign != nil && !m.foreign {
		return Item{}, fmt.Errorf("key %s: %w; adopt it or remove it", quote(key), cur.foreign)
	}
	next, err := m.apply(cur)
	if errors.Is(err, errUnchanged) {
		return cur, nil
	}
	if err != nil {
		return Item{}, err
	}
	if int64(len(next.Body)) > o.cfg.MaxBytes {
		return Item{}, fmt.Errorf("%w: key %s: %d bytes, at most %d", ErrTooLarge, quote(key), len(next.Body), o.cfg.MaxBytes)
	}
	next.Token, next.nonce = token, newNonce()
	return o.swap(ctx, key, cur, next)
}

func (o *Objects) stale(have, floor fence.Token) *fence.StaleError {
	return &fence.StaleError{Resource: o.cfg.Resource, Have: have, Floor: floor}
}

// swap replaces cur by next, or answers ErrPrecondition, ErrRefused (nothing was written) or ErrUnknown.
func (o *Objects) swap(ctx context.Context, key string, cur, next Item) (Item, error) {
	etag, err := o.write(ctx, key, cur, next)
	if err == nil {
		return written(key, cur, next, etag)
	}
	if errors.Is(err, ErrPrecondition) || errors.Is(err, ErrRefused) {
		return Item{}, fmt.Errorf("write %s: %w", quote(key), err)
	}
	unknown := &UnknownError{Key: key, Cause: err}
	// The write may have happened, or may happen yet. Sending the same again is harmless: the condition lets at most
	// one of them through, and which does not matter.
	for range 2 {
		now, err := o.load(ctx, key)
		switch {
		case err != nil:
			return Item{}, unknown
		case now.nonce == next.nonce:
			return now, nil
		case now.Token > next.Token:
			unknown.Stale = o.stale(next.Token, now.Token)
			return Item{}, unknown
		case now.ETag != cur.ETag:
			return Item{}, unknown // overwritten by another, perhaps before ours and perhaps after it
		}
		if etag, err = o.write(ctx, key, cur, next); err == nil {
			return written(key, cur, next, etag)
		}
	}
	return Item{}, unknown
}

func (o *Objects) write(ctx context.Context, key string, cur, next Item) (etag string, err error) {
	s := seal{token: next.Token, nonce: next.nonce, kind: live}
	if next.Deleted {
		s.kind = gone
	}
	data := append(s.line(), next.Body...)
	return o.store.Put(ctx, o.cfg.Prefix+key, Input{
		Body: bytes.NewReader(data), Size: int64(len(data)),
		Metadata: map[string]string{TokenMetadata: next.Token.Decimal()},
		If:       Condition{Match: cur.ETag, Absent: cur.ETag == ""},
	})
}

// written checks what all of this rests on: that no object becomes again what it was.
func written(key string, cur, next Item, etag string) (Item, error) {
	if etag == "" || etag == cur.ETag {
		return Item{}, fmt.Errorf("%w: key %s: ETag %s after writing other content than under ETag %s",
			ErrUnsafe, quote(key), quote(etag), quote(cur.ETag))
	}
	next.ETag = etag
	return next, nil
}

// pause waits before all but the first attempt, for up to a third of a second, at random so that rivals part.
func pause(ctx context.Context, attempt int) error {
	if attempt == 0 {
		return ctx.Err()
	}
	most := 5 * time.Millisecond << min(attempt-1, 6)
	timer := time.NewTimer(rand.N(most))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

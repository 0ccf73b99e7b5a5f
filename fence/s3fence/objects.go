package s3fence

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/writ-io/writ/fence"
)

// Objects fences single objects. Each write is atomic for its object and for no other; see the package's documentation for
// what that leaves open, and [Manifest] for what does not.
//
// It is safe for concurrent use and keeps no state.
type Objects struct {
	store Store
	cfg   Config
}

// NewObjects returns the objects under cfg.Prefix.
func NewObjects(store Store, cfg Config) (*Objects, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Objects{store: store, cfg: cfg.withDefaults()}, nil
}

// Item is an object as it was read or written.
type Item struct {
	// Token is the one it was last written under; zero: never under any.
	Token fence.Token
	// Body is without the seal.
	Body []byte
	// Deleted: it was deleted under Token.
	Deleted bool
	// ETag is that of the stored object; empty: there is none.
	ETag string

	nonce   string
	foreign error
}

// Exists reports whether there is something to read.
func (i Item) Exists() bool { return i.ETag != "" && !i.Deleted }

// Get reads an object. Reads are not fenced: it may be overwritten before Get returns. [ErrNotFound] comes with the token
// of the deletion, if it was deleted.
func (o *Objects) Get(ctx context.Context, key string) (Item, error) {
	if err := o.cfg.checkKey(key); err != nil {
		return Item{}, err
	}
	item, err := o.load(ctx, key)
	switch {
	case err != nil:
		return Item{}, err
	case item.foreign != nil:
		return item, item.foreign
	case !item.Exists():
		return item, fmt.Errorf("%w: key %s", ErrNotFound, quote(key))
	}
	return item, nil
}

// Put writes an object, whatever it was. A token below the object's, or below the fence, is a [*fence.StaleError].
func (o *Objects) Put(ctx context.Context, key string, token fence.Token, body []byte) (Item, error) {
	return o.Update(ctx, key, token, func(Item) ([]byte, error) { return body, nil })
}

// Update writes what change makes of the object as it is. Nothing is lost between reading and writing: if another
// writer comes in between, change is called again. Its error ends Update, and nothing is written.
func (o *Objects) Update(ctx context.Context, key string, token fence.Token, change func(Item) ([]byte, error)) (Item, error) {
	if err := o.cfg.checkKey(key); err != nil {
		return Item{}, err
	}
	return o.mutate(ctx, key, token, mutation{fenced: !o.cfg.Unfenced, apply: func(cur Item) (Item, error) {
		body, err := change(cur)
		return Item{Body: body}, err
	}})
}

// Touch writes the object anew under token, with the same content, unless it is under token already. From then on every
// write of an older holder fails, even one that is under way. An object that does not exist is marked as deleted under
// token, so that no older holder can create it either.
//
// Who takes over must touch whatever it will rely on, before it reads it: until then, older holders can write it.
func (o *Objects) Touch(ctx context.Context, key string, token fence.Token) (Item, error) {
	if err := o.cfg.checkKey(key); err != nil {
		return Item{}, err
	}
	return o.mutate(ctx, key, token, mutation{fenced: !o.cfg.Unfenced, apply: touch(token)})
}

// Delete deletes an object by writing a tombstone that keeps the token; were the object really gone, then an older holder
// could create it again. That there is none is no error.
func (o *Objects) Delete(ctx context.Context, key string, token fence.Token) (Item, error) {
	if err := o.cfg.checkKey(key); err != nil {
		return Item{}, err
	}
	return o.mutate(ctx, key, token, mutation{fenced: !o.cfg.Unfenced, apply: func(Item) (Item, error) {
		return Item{Deleted: true}, nil
	}})
}

// Adopt is Touch for an object that was not written through this package, which all others refuse as [ErrForeign]. It
// seals the object as it is. Who wrote it so far is not stopped by that: see that nobody else writes it any more.
func (o *Objects) Adopt(ctx context.Context, key string, token fence.Token) (Item, error) {
	if err := o.cfg.checkKey(key); err != nil {
		return Item{}, err
	}
	return o.mutate(ctx, key, token, mutation{fenced: !o.cfg.Unfenced, foreign: true, apply: touch(token)})
}

// TouchAll touches every object there is, and returns how many. Older holders can create others meanwhile and afterwards,
// which is seen by their tokens.
func (o *Objects) TouchAll(ctx context.Context, token fence.Token) (int, error) {
	touched := 0
	for key, err := range o.store.List(ctx, o.cfg.Prefix) {
		if err != nil {
			return touched, fmt.Errorf("list: %w", err)
		}
		key = strings.TrimPrefix(key, o.cfg.Prefix)
		if strings.HasPrefix(key, reserved) {
			continue
		}
		if _, err := o.Touch(ctx, key, token); err != nil {
			return touched, err
		}
		touched++
	}
	return touched, nil
}

// Raise sets the fence under the prefix to token: an object that older holders read before each write. That stops those
// that still ask, for every key at once, also for keys that nobody has touched. It is check-then-act: a write that has
// passed the check goes on, however long it is paused in between. Only [Objects.Touch] stops that.
func (o *Objects) Raise(ctx context.Context, token fence.Token) error {
	_, err := o.mutate(ctx, fenceKey, token, mutation{apply: touch(token)})
	return err
}

// Floor reads the fence: the highest token that it was raised to; zero: never.
func (o *Objects) Floor(ctx context.Context) (fence.Token, error) {
	item, err := o.load(ctx, fenceKey)
	if err != nil {
		return 0, err
	}
	return item.Token, item.foreign
}

// touch keeps the content.
func touch(token fence.Token) func(Item) (Item, error) {
	return func(cur Item) (Item, error) {
		if cur.Token == token && cur.foreign == nil {
			return Item{}, errUnchanged
		}
		return Item{Body: cur.Body, Deleted: !cur.Exists()}, nil
	}
}

// load reads an object of any kind. What is not readable as one of ours is in Item.foreign, with all of it as the body;
// damage is an error.
func (o *Objects) load(ctx context.Context, key string) (Item, error) {
	object, err := o.store.Get(ctx, o.cfg.Prefix+key)
	if errors.Is(err, ErrNotFound) {
		return Item{}, nil
	}
	if err != nil {
		return Item{}, fmt.Errorf("read %s: %w", quote(key), err)
	}
	defer object.Body.Close()
	limit := o.cfg.MaxBytes + maxSealBytes
	data, err := io.ReadAll(io.LimitReader(object.Body, limit+1))
	if err != nil {
		return Item{}, fmt.Errorf("read %s: %w", quote(key), err)
	}
	if int64(len(data)) > limit {
		return Item{}, fmt.Errorf("%w: key %s: more than %d bytes", ErrTooLarge, quote(key), o.cfg.MaxBytes)
	}
	if object.ETag == "" {
		return Item{}, fmt.Errorf("%w: key %s: read without an ETag", ErrUnsafe, quote(key))
	}
	item, err := readItem(data, object.Metadata)
	if err != nil {
		return Item{}, fmt.Errorf("key %s: %w", quote(key), err)
	}
	item.ETag = object.ETag
	return item, nil
}

// readItem interprets what a storage holds.
func readItem(data []byte, metadata map[string]string) (Item, error) {
	named, err := metadataToken(metadata)
	if err != nil {
		return Item{}, err
	}
	s, body, err := openSeal(data)
	switch {
	case errors.Is(err, ErrForeign):
		// A token that only the metadata names counts as well, lest it be passed by.
		return Item{Token: named, Body: data, foreign: err}, nil
	case err != nil:
		return Item{}, err
	case named.IsZero():
		// Whoever copied the body without the metadata copied an old nonce.
		return Item{Token: s.token, Body: body, Deleted: s.kind == gone,
			foreign: fmt.Errorf("%w: it has a seal but no metadata %s", ErrForeign, TokenMetadata)}, nil
	case named != s.token:
		return Item{}, fmt.Errorf("%w: token %s in the metadata, %s in the seal", ErrDamaged, named, s.token)
	}
	return Item{Token: s.token, Body: body, Deleted: s.kind == gone, nonce: s.nonce}, nil
}

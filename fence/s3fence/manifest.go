package s3fence

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/writ-io/writ/fence"
)

// Manifest is the set of objects that one holder writes: immutable data objects, each under a key of its own that carries
// the token, and one manifest that names those that count. Whatever an older holder still writes, nothing refers to it; and
// the manifest it cannot write any more from the instant that OpenManifest has returned, however long it was paused, because
// every state of the manifest is different from all before it.
//
// Several changes in one [Manifest.Update] happen together or not at all.
//
// It is safe for concurrent use, also by several processes under the same token.
type Manifest struct {
	*Reader
	token fence.Token

	mu sync.Mutex
	// litter are data objects that nothing refers to, and nothing ever will.
	litter []string // under mu
}

// Change is one change of a manifest.
type Change struct {
	// Name is what to change: 1 to 512 bytes of printable UTF-8.
	Name string
	// Body is the new content, read from its beginning, perhaps several times. Nil removes the name.
	Body io.ReadSeeker
}

// OpenManifest takes the manifest under cfg.Prefix over for the holder of token, or creates it. It returns once no holder
// of an older token can change it. If there is a newer one already, that is a [*fence.StaleError].
func OpenManifest(ctx context.Context, store Store, cfg Config, token fence.Token) (*Manifest, error) {
	reader, err := NewReader(store, cfg)
	if err != nil {
		return nil, err
	}
	m := &Manifest{Reader: reader, token: token}
	_, err = m.objects.mutate(ctx, manifestKey, token, mutation{apply: func(cur Item) (Item, error) {
		snapshot := Snapshot{}
		if cur.ETag != "" {
			var err error
			if snapshot, err = m.parse(cur); err != nil {
				return Item{}, err
			}
			if cur.Token == token {
				return Item{}, errUnchanged
			}
		}
		return m.next(snapshot)
	}})
	if err != nil {
		return nil, fmt.Errorf("open manifest: %w", err)
	}
	return m, nil
}

// Token returns the token that the manifest is written under.
func (m *Manifest) Token() fence.Token { return m.token }

// Update changes the manifest by what change makes of its present state: first the data objects are written, then the
// manifest that names them, at once. If another writer under the same token comes in between, change is called again. Its
// error ends Update, and nothing is changed. No changes: nothing is written.
func (m *Manifest) Update(ctx context.Context, change func(Snapshot) ([]Change, error)) (Snapshot, error) {
	var (
		dropped, uploaded []string
		result            Snapshot
	)
	discard := func() { m.leave(uploaded); uploaded = nil }
	_, err := m.objects.mutate(ctx, manifestKey, m.token, mutation{conflicted: discard, apply: func(cur Item) (Item, error) {
		if cur.ETag == "" {
			return Item{}, fmt.Errorf("%w: the manifest is gone: somebody removed it without this package", ErrDamaged)
		}
		snapshot, err := m.parse(cur)
		if err != nil {
			return Item{}, err
		}
		result = snapshot
		changes, err := change(snapshot.clone())
		if err != nil {
			return Item{}, err
		}
		if len(changes) == 0 {
			return Item{}, errUnchanged
		}
		snapshot = snapshot.clone()
		dropped = nil
		for _, c := range changes {
			if err := checkName(c.Name); err != nil {
				return Item{}, err
			}
			if old, ok := snapshot.objects[c.Name]; ok {
				dropped = append(dropped, old.Key)
			}
			delete(snapshot.objects, c.Name)
			if c.Body == nil {
				continue
			}
			ref, err := m.upload(ctx, c.Body)
			uploaded = append(uploaded, ref.Key) // even after an error: it may be there
			if err != nil {
				return Item{}, fmt.Errorf("data of %s: %w", quote(c.Name), err)
			}
			snapshot.objects[c.Name] = ref
		}
		item, err := m.next(snapshot)
		result = snapshot
		result.Revision, result.Token = snapshot.Revision+1, m.token
		return item, err
	}})
	switch {
	case errors.Is(err, ErrUnknown):
		return Snapshot{}, fmt.Errorf("update manifest: %w", err) // the new ones may count, or the old ones
	case err != nil:
		discard()
		return Snapshot{}, fmt.Errorf("update manifest: %w", err)
	}
	m.leave(dropped)
	return result, nil
}

// next encodes the state after snapshot.
func (m *Manifest) next(snapshot Snapshot) (Item, error) {
	snapshot.Revision++
	body, err := snapshot.encode()
	return Item{Body: body}, err
}

// upload writes a data object under a key that nobody else uses or used.
func (m *Manifest) upload(ctx context.Context, body io.ReadSeeker) (Ref, error) {
	ref := Ref{Key: dataKey(m.token, newNonce())}
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return ref, err
	}
	digest := sha256.New()
	size, err := io.Copy(digest, body)
	if err != nil {
		return ref, err
	}
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return ref, err
	}
	ref.Size, ref.SHA256 = size, hex.EncodeToString(digest.Sum(nil))
	_, err = m.objects.store.Put(ctx, m.objects.cfg.Prefix+ref.Key, Input{
		Body: body, Size: size,
		Metadata: map[string]string{TokenMetadata: m.token.Decimal()},
		If:       Condition{Absent: true},
	})
	return ref, err
}

func (m *Manifest) leave(keys []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.litter = append(m.litter, keys...)
}

// Collect removes data objects that do not count, and returns how many: those that updates through m have replaced, and
// all that older holders left. It harms nobody even when a stale holder runs it, because what it removes can never
// be referred to again: only the holder of a token refers to new objects under that token, and each later state
// refers to objects of the state before or to new ones. Readers of an older state may find an object missing; those
// of this package read the manifest again.
func (m *Manifest) Collect(ctx context.Context) (int, error) {
	snapshot, err := m.Snapshot(ctx)
	if err != nil {
		return 0, err
	}
	if m.token < snapshot.Token {
		return 0, m.objects.stale(m.token, snapshot.Token)
	}
	used := make(map[string]bool, len(snapshot.objects))
	for _, ref := range snapshot.objects {
		used[ref.Key] = true
	}
	removed := 0
	remove := func(key string) error {
		err := m.objects.store.Delete(ctx, m.objects.cfg.Prefix+key)
		if err == nil {
			removed++
		}
		return err
	}
	m.mu.Lock()
	litter := m.litter
	m.litter = nil
	m.mu.Unlock()
	for i, key := range litter {
		if used[key] {
			return removed, fmt.Errorf("%w: manifest: it names %s again, which it had dropped", ErrDamaged, key)
		}
		if err := remove(key); err != nil {
			m.leave(litter[i:])
			return removed, fmt.Errorf("collect: %w", err)
		}
	}
	prefix := m.objects.cfg.Prefix
	for key, err := range m.objects.store.List(ctx, prefix+dataPrefix) {
		if err != nil {
			return removed, fmt.Errorf("collect: list: %w", err)
		}
		key = key[len(prefix):]
		// An object under the present token may be one that is about to be named.
		token, err := dataToken(key)
		if err != nil || token >= snapshot.Token || used[key] {
			continue
		}
		if err := remove(key); err != nil {
			return removed, fmt.Errorf("collect: %w", err)
		}
	}
	return removed, nil
}

package s3fence_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"fmt"
	"io"
	"iter"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/writ-io/writ/fence/s3fence"
)

// memory is a storage that does what is asked of one, and, if told so, not quite.
type memory struct {
	mu      sync.Mutex
	objects map[string]memoryObject // under mu

	ignoreAbsent  bool // writes over what exists
	ignoreMatch   bool // writes over what has changed
	createOnMatch bool // creates on condition of an ETag
	constantETag  bool // all objects have one ETag
	noMetadata    bool // forgets metadata
	checkThenAct  bool // decides before it writes, as two steps
	torn          bool // answers an old body with a new ETag while writing
	lateList      bool // does not list anything
}

type memoryObject struct {
	body     []byte
	etag     string
	metadata map[string]string
	previous []byte
}

func newMemory() *memory { return &memory{objects: make(map[string]memoryObject)} }

func (m *memory) Get(ctx context.Context, key string) (*s3fence.Object, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	object, ok := m.objects[key]
	if !ok {
		return nil, fmt.Errorf("%w: %s", s3fence.ErrNotFound, key)
	}
	body := object.body
	if m.torn && len(body) > 1<<10 && object.previous != nil {
		body = object.previous
	}
	return &s3fence.Object{Body: io.NopCloser(bytes.NewReader(body)), ETag: object.etag, Metadata: object.metadata}, ctx.Err()
}

func (m *memory) Put(ctx context.Context, key string, in s3fence.Input) (string, error) {
	body, err := io.ReadAll(in.Body)
	if err != nil || int64(len(body)) != in.Size {
		return "", fmt.Errorf("%w: body of %d bytes, not %d: %w", s3fence.ErrRefused, len(body), in.Size, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.holds(key, in.If) {
		return "", fmt.Errorf("%w: %s", s3fence.ErrPrecondition, key)
	}
	if m.checkThenAct {
		m.mu.Unlock()
		for range 100 {
			runtime.Gosched()
		}
		m.mu.Lock()
	}
	object := memoryObject{
		body: body, etag: fmt.Sprintf("\"%x\"", md5.Sum(body)),
		metadata: maps.Clone(in.Metadata), previous: m.objects[key].body,
	}
	if m.constantETag {
		object.etag = `"constant"`
	}
	if m.noMetadata {
		object.metadata = nil
	}
	m.objects[key] = object
	return object.etag, ctx.Err()
}

func (m *memory) holds(key string, c s3fence.Condition) bool {
	object, exists := m.objects[key]
	if c.Absent {
		return !exists || m.ignoreAbsent
	}
	if !exists {
		return m.createOnMatch
	}
	return object.etag == c.Match || m.ignoreMatch
}

func (m *memory) Delete(_ context.Context, key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, key)
	return nil
}

func (m *memory) List(_ context.Context, prefix string) iter.Seq2[string, error] {
	m.mu.Lock()
	keys := slices.Sorted(maps.Keys(m.objects))
	m.mu.Unlock()
	return func(yield func(string, error) bool) {
		for _, key := range keys {
			if strings.HasPrefix(key, prefix) && !m.lateList && !yield(key, nil) {
				return
			}
		}
	}
}

// intercepted is a storage with something before or instead of its operations.
type intercepted struct {
	s3fence.Store
	beforePut func(key string)
	put       func(ctx context.Context, key string, in s3fence.Input) (string, error)
	deleted   func(key string)
}

func (i *intercepted) Put(ctx context.Context, key string, in s3fence.Input) (string, error) {
	if i.beforePut != nil {
		i.beforePut(key)
	}
	if i.put != nil {
		return i.put(ctx, key, in)
	}
	return i.Store.Put(ctx, key, in)
}

func (i *intercepted) Delete(ctx context.Context, key string) error {
	if i.deleted != nil {
		i.deleted(key)
	}
	return i.Store.Delete(ctx, key)
}

// pauseBeforePut lets the first write to a key with that suffix wait: between what its writer has read and what it writes
// lies whatever happens between a receive from reached and the closing of release.
func pauseBeforePut(store s3fence.Store, suffix string) (paused s3fence.Store, reached <-chan struct{}, release chan<- struct{}) {
	at, on := make(chan struct{}), make(chan struct{})
	var once sync.Once
	return &intercepted{Store: store, beforePut: func(key string) {
		if strings.HasSuffix(key, suffix) {
			once.Do(func() { close(at); <-on })
		}
	}}, at, on
}

package s3fence

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
)

// Reader reads what a [Manifest] holds. It needs no token. It is safe for concurrent use.
type Reader struct {
	objects *Objects
}

// NewReader returns a reader of the manifest under cfg.Prefix.
func NewReader(store Store, cfg Config) (*Reader, error) {
	objects, err := NewObjects(store, cfg)
	if err != nil {
		return nil, err
	}
	return &Reader{objects: objects}, nil
}

// Snapshot reads the present state, or [ErrNotFound]. Reads are not fenced: it may be the past before Snapshot returns.
func (r *Reader) Snapshot(ctx context.Context) (Snapshot, error) {
	item, err := r.objects.load(ctx, manifestKey)
	if err != nil {
		return Snapshot{}, err
	}
	if item.ETag == "" {
		return Snapshot{}, fmt.Errorf("%w: no manifest under prefix %s", ErrNotFound, quote(r.objects.cfg.Prefix))
	}
	return r.parse(item)
}

func (r *Reader) parse(item Item) (Snapshot, error) {
	switch {
	case item.foreign != nil:
		return Snapshot{}, fmt.Errorf("manifest: %w", item.foreign)
	case item.Deleted:
		return Snapshot{}, fmt.Errorf("%w: manifest: it is a tombstone", ErrDamaged)
	}
	return decodeSnapshot(item.Token, item.Body)
}

// Get reads the present content of a name as a whole, up to [Config].MaxBytes.
func (r *Reader) Get(ctx context.Context, name string) ([]byte, error) {
	var before Ref
	for {
		snapshot, err := r.Snapshot(ctx)
		if err != nil {
			return nil, err
		}
		ref, ok := snapshot.Ref(name)
		if !ok {
			return nil, fmt.Errorf("%w: name %s", ErrNotFound, quote(name))
		}
		if ref.Size > r.objects.cfg.MaxBytes {
			return nil, fmt.Errorf("%w: name %s: %d bytes; open it instead", ErrTooLarge, quote(name), ref.Size)
		}
		body, err := r.read(ctx, ref)
		if !errors.Is(err, ErrNotFound) {
			return body, err
		}
		if ref == before {
			return nil, fmt.Errorf("%w: name %s: its data object %s is gone", ErrDamaged, quote(name), ref.Key)
		}
		before = ref // replaced and collected since the snapshot, or lost: the next snapshot tells
	}
}

func (r *Reader) read(ctx context.Context, ref Ref) ([]byte, error) {
	body, err := r.Open(ctx, ref)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var data bytes.Buffer
	_, err = data.ReadFrom(body)
	return data.Bytes(), err
}

// Open streams the data object that ref refers to; [ErrNotFound]: it has been replaced and collected. If it ends
// otherwise than it should, or is not what was written, the last read answers [ErrDamaged] instead of io.EOF.
func (r *Reader) Open(ctx context.Context, ref Ref) (io.ReadCloser, error) {
	if _, err := dataToken(ref.Key); err != nil {
		return nil, err
	}
	object, err := r.objects.store.Get(ctx, r.objects.cfg.Prefix+ref.Key)
	if err != nil {
		return nil, err
	}
	return &verified{body: object.Body, ref: ref, digest: sha256.New()}, nil
}

// verified compares what it passes on with the reference.
type verified struct {
	body   io.ReadCloser
	ref    Ref
	digest hash.Hash
	read   int64
}

func (v *verified) Read(p []byte) (int, error) {
	n, err := v.body.Read(p)
	v.digest.Write(p[:n])
	v.read += int64(n)
	if v.read > v.ref.Size || errors.Is(err, io.EOF) && (v.read != v.ref.Size || hex.EncodeToString(v.digest.Sum(nil)) != v.ref.SHA256) {
		return n, fmt.Errorf("%w: data object %s is not what was written", ErrDamaged, v.ref.Key)
	}
	return n, err
}

func (v *verified) Close() error { return v.body.Close() }

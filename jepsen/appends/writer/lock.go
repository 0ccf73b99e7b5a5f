//go:build linux

package writer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/jepsen/appends/store"
	"github.com/writ-io/writ/lease"
)

// locker is what decides who may write.
type locker interface {
	// acquire waits.
	acquire(ctx context.Context) (grant, error)
	close()
}

// grant is the right to write, as long as nobody else was given it.
type grant struct {
	token   fence.Token
	writ    string            // empty: there is none
	proofs  map[string]string // as in [Said]
	release func(context.Context) error
	// spoil is told that a write under it may come late; nil: a new grant is enough against that.
	spoil func()
}

// dial connects to what decides, again and again until ctx ends.
func (w *writer) dial(ctx context.Context) (locker, error) {
	c := w.config
	if c.Group != "" {
		return dialTenure(c)
	}
	if c.Etcd {
		client, err := clientv3.New(clientv3.Config{Endpoints: c.Endpoints, DialTimeout: time.Second})
		return &etcdLock{client: client, ttl: c.TTL}, err
	}
	for {
		client, err := lease.Dial(ctx, lease.Config{
			Endpoints: c.Endpoints, CAFile: c.CA, CertFile: c.Cert, KeyFile: c.Key, Instance: c.Name,
			AttemptTimeout: time.Second, CallTimeout: 5 * time.Second,
		})
		if err == nil {
			return &writLock{client: client, resource: c.resource(), ttl: c.TTL}, nil
		}
		if ctx.Err() != nil {
			return &writLock{}, nil // never used
		}
		fmt.Fprintln(os.Stderr, "dial:", err)
	}
}

// writLock is a lease, and the writ that shows it.
type writLock struct {
	client   *lease.Client
	resource string
	ttl      time.Duration
}

func (l *writLock) close() {
	if l.client != nil {
		_ = l.client.Close()
	}
}

func (l *writLock) acquire(ctx context.Context) (grant, error) {
	hold, err := l.client.Acquire(ctx, l.resource, lease.AcquireOptions{TTL: l.ttl, WantWrit: true})
	if err != nil {
		return grant{}, err
	}
	ctx = context.WithoutCancel(ctx)
	g := grant{token: hold.Token(), release: hold.Release}
	if g.writ, err = hold.Writ(ctx); err != nil {
		ctx, cancel := context.WithTimeout(ctx, farewellLimit)
		defer cancel()
		return grant{}, errors.Join(err, hold.Release(ctx))
	}
	g.proofs = l.proofs(ctx, g.token)
	return g, nil
}

// proofs finds out how the guards were proved to refuse what is older than a grant.
func (l *writLock) proofs(ctx context.Context, token fence.Token) map[string]string {
	ctx, cancel := context.WithTimeout(ctx, ReadLimit)
	defer cancel()
	info, err := l.client.Get(ctx, l.resource, lease.GetOptions{})
	if err != nil || info.Token != token {
		return nil
	}
	proofs := make(map[string]string)
	for _, p := range info.Proofs {
		proofs[p.Guard] = p.How.String()
	}
	return proofs
}

// etcdLock is what programs use that lock by etcd alone: a session, and a mutex in it.
type etcdLock struct {
	client *clientv3.Client
	ttl    time.Duration
}

func (l *etcdLock) close() { _ = l.client.Close() }

func (l *etcdLock) acquire(ctx context.Context) (grant, error) {
	// Etcd leases last for whole seconds.
	seconds := max(1, int(l.ttl/time.Second))
	session, err := concurrency.NewSession(l.client, concurrency.WithTTL(seconds), concurrency.WithContext(context.WithoutCancel(ctx)))
	if err != nil {
		return grant{}, err
	}
	mutex := concurrency.NewMutex(session, "/"+store.Resource)
	if err := mutex.Lock(ctx); err != nil {
		return grant{}, errors.Join(err, session.Close())
	}
	// What etcd has for a token is the revision at which the lock was seen to be one's own.
	token, err := fence.NewToken(1, uint64(mutex.Header().GetRevision()))
	return grant{
		token: token,
		release: func(ctx context.Context) error {
			return errors.Join(mutex.Unlock(ctx), session.Close())
		},
	}, err
}

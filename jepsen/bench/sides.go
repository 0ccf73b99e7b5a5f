package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/writ-io/writ/lease"
)

// ttl of every lease but where the work says otherwise.
const ttl = 10 * time.Second

// side is one of the two that are compared. Worker i has a session of its own; lock waits.
type side interface {
	lock(ctx context.Context, worker int, key string) (unlock func(context.Context) error, err error)
	close()
}

type etcdSide struct {
	client   *clientv3.Client
	sessions []*concurrency.Session
}

func newEtcdSide(ctx context.Context, c *cluster, workers int) (*etcdSide, error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: c.client[:], DialTimeout: 5 * time.Second, Context: ctx})
	if err != nil {
		return nil, err
	}
	s := &etcdSide{client: client}
	for range workers {
		session, err := concurrency.NewSession(client, concurrency.WithTTL(int(ttl/time.Second)))
		if err != nil {
			return nil, err
		}
		s.sessions = append(s.sessions, session)
	}
	return s, nil
}

func (s *etcdSide) lock(ctx context.Context, worker int, key string) (func(context.Context) error, error) {
	m := concurrency.NewMutex(s.sessions[worker], "/bench/"+key)
	if err := m.Lock(ctx); err != nil {
		return nil, err
	}
	return m.Unlock, nil
}

func (s *etcdSide) close() { _ = s.client.Close() }

type writSide struct {
	client *lease.Client
	ttl    time.Duration
}

func newWritSide(ctx context.Context, c *cluster) (*writSide, error) {
	client, err := lease.Dial(ctx, lease.Config{Endpoints: c.client[:], Insecure: true, Region: "eu"})
	if err != nil {
		return nil, err
	}
	return &writSide{client: client, ttl: ttl}, nil
}

func (s *writSide) lock(ctx context.Context, _ int, key string) (func(context.Context) error, error) {
	hold, err := s.client.Acquire(ctx, "bench/"+key, lease.AcquireOptions{TTL: s.ttl})
	if err != nil {
		return nil, err
	}
	return hold.Release, nil
}

func (s *writSide) close() { _ = s.client.Close() }

// open starts a cluster of a kind with a client for workers, and waits until it has granted something.
func open(ctx context.Context, o options, kind string, tm timing, workers int) (*cluster, side, error) {
	c, err := startCluster(ctx, o, kind, tm)
	if err != nil {
		return nil, nil, err
	}
	ready, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var s side
	if c.kind == "etcd" {
		s, err = newEtcdSide(ctx, c, workers)
	} else {
		s, err = newWritSide(ctx, c)
	}
	if err == nil {
		var unlock func(context.Context) error
		if unlock, err = s.lock(ready, 0, "ready-"+rand.Text()); err == nil {
			err = unlock(ready)
		}
	}
	if err != nil {
		c.stop()
		return nil, nil, fmt.Errorf("%s: %w", kind, err)
	}
	return c, s, nil
}

var kinds = [2]string{"etcd", "writ"}

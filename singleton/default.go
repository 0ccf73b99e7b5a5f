package singleton

import (
	"context"
	"sync"

	"github.com/writ-io/writ/lease"
)

// Run is [Singleton.Run] with a client that is configured by the environment, as lease.ConfigFromEnv says: WRIT_ENDPOINTS,
// WRIT_CA, WRIT_CERT, WRIT_KEY and WRIT_REGION. All calls that run at a time share the client, which is connected for the
// first of them and closed after the last. Errors besides: what lease.Dial returns.
func Run(ctx context.Context, resource string, fn Func, opts ...Option) error {
	return shared.with(ctx, func(s *Singleton) error { return s.Run(ctx, resource, fn, opts...) })
}

// Try is [Singleton.Try] with the client of [Run].
func Try(ctx context.Context, resource string, fn Func, opts ...Option) error {
	return shared.with(ctx, func(s *Singleton) error { return s.Try(ctx, resource, fn, opts...) })
}

// shared is the process's own Singleton.
var shared ambient

// ambient is a Singleton that exists while it is used.
type ambient struct {
	mu        sync.Mutex
	users     int        // guarded by mu
	singleton *Singleton // guarded by mu; nil without users, or before the first one has connected
}

// with calls do with the Singleton, and closes its client if nobody else uses it then, also if do panics.
func (a *ambient) with(ctx context.Context, do func(*Singleton) error) error {
	s, err := a.enter(ctx)
	if err != nil {
		return err
	}
	defer a.leave()
	return do(s)
}

// enter connects if nobody has. Others wait for that, which takes no longer than lease.Config.DialTimeout.
func (a *ambient) enter(ctx context.Context) (*Singleton, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.singleton == nil {
		cfg, err := lease.ConfigFromEnv()
		if err != nil {
			return nil, err
		}
		client, err := lease.Dial(ctx, cfg)
		if err != nil {
			return nil, err
		}
		if a.singleton, err = New(client, Config{}); err != nil {
			_ = client.Close() // which returns nil
			return nil, err
		}
	}
	a.users++
	return a.singleton, nil
}

func (a *ambient) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.users--; a.users > 0 {
		return
	}
	_ = a.singleton.client.Close() // which returns nil
	a.singleton = nil
}

package singleton

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/writ-io/writ/lease"
)

// Option changes how one call runs its function. Options win over [Config].
type Option func(*settings)

// settings is what one call goes by.
type settings struct {
	Config
	priority     *int32 // nil: by region
	metadata     []byte
	wantWrit     bool
	returnOnLoss bool
	handOver     bool
	// Of Consume alone.
	home        func(partition int) string
	revokeGrace time.Duration
}

// TTL is [Config.TTL] for one call.
func TTL(ttl time.Duration) Option { return func(s *settings) { s.TTL = ttl } }

// StopGrace is [Config.StopGrace] for one call.
func StopGrace(grace time.Duration) Option { return func(s *settings) { s.StopGrace = grace } }

// Strict is [Config.Strict] for one call.
func Strict() Option { return func(s *settings) { s.Strict = true } }

// OnStuck is [Config.OnStuck] for one call.
func OnStuck(tell func(Stuck)) Option { return func(s *settings) { s.OnStuck = tell } }

// WithHooks is [Config.Hooks] for one call.
func WithHooks(hooks Hooks) Option { return func(s *settings) { s.Hooks = hooks } }

// WithLogger is [Config.Logger] for one call, nil for nobody. See [LoggerOf] for other loggers.
func WithLogger(logger *slog.Logger) Option { return func(s *settings) { s.Logger = logger } }

// Eligible is [Config.Eligible] for one call.
func Eligible(regions ...string) Option { return func(s *settings) { s.Eligible = regions } }

// Preferred is [Config.Preferred] for one call.
func Preferred(regions ...string) Option { return func(s *settings) { s.Preferred = regions } }

// Priority says how to wait: before all requests of lower priority, -1000 to 1000. The default is 0, or higher in a
// preferred region. A process that runs gives way to a waiter of higher priority only if it says [HandOver] or preferred
// regions are named.
func Priority(priority int32) Option { return func(s *settings) { s.priority = &priority } }

// HandOver stops the function when a request of higher priority waits, and queues again: see [ErrHandedOver].
func HandOver() Option { return func(s *settings) { s.handOver = true } }

// Metadata is shown to whoever looks at the lease: up to 4 KiB.
func Metadata(metadata []byte) Option { return func(s *settings) { s.metadata = metadata } }

// WantWrit has the grant signed also if the resource is not guarded, for storage behind a guard that verifies writs but
// has no part in grants.
func WantWrit() Option { return func(s *settings) { s.wantWrit = true } }

// ReturnOnLoss makes Run return an error that matches [ErrLost] when the lease was lost, once the function has returned,
// rather than queue again.
func ReturnOnLoss() Option { return func(s *settings) { s.returnOnLoss = true } }

// settings puts the options of a call over the configuration. Errors: INVALID, as [Config.Validate] says.
func (s *Singleton) settings(opts []Option) (*settings, error) {
	set := &settings{Config: s.given}
	for _, o := range opts {
		if o == nil {
			return nil, lease.Invalid("options", "hold nil", "leave it out")
		}
		o(set)
	}
	if set.Region == "" {
		set.Region = s.client.Region()
	}
	if err := set.Validate(); err != nil {
		return nil, err
	}
	set.Config = set.withDefaults()
	if p := set.priority; p != nil && (*p < -lease.MaxPriority || *p > lease.MaxPriority) {
		return nil, lease.Invalid("priority", fmt.Sprintf("is %d", *p), fmt.Sprintf("use -%d to %[1]d", lease.MaxPriority))
	}
	if len(set.metadata) > lease.MaxMetadataBytes {
		return nil, lease.Invalid("metadata", fmt.Sprintf("is %d bytes long", len(set.metadata)),
			fmt.Sprintf("use at most %d", lease.MaxMetadataBytes))
	}
	return set, nil
}

// runner is what the core decides by.
func (s *settings) runner() RunnerConfig {
	return RunnerConfig{
		Ineligible: !s.eligible(), HandOver: s.handOver || len(s.Preferred) > 0, StopOnLoss: s.returnOnLoss,
		StopGrace: s.StopGrace, Strict: s.Strict, TellStuck: s.OnStuck != nil,
	}
}

// acquire is how the lease is asked for.
func (s *settings) acquire() lease.AcquireOptions {
	o := lease.AcquireOptions{TTL: s.TTL, Lead: s.StopLead, Metadata: s.metadata, WantWrit: s.wantWrit, Priority: s.rank()}
	if s.priority != nil {
		o.Priority = *s.priority
	}
	return o
}

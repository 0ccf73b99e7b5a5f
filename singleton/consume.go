package singleton

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/singleton/partition"
)

// MaxPartitions is how many partitions a group may have.
const MaxPartitions = partition.MaxPartitions

// DefaultRevokeGrace is how long a function has to finish after its partition was revoked, unless [RevokeGrace] says
// otherwise.
const DefaultRevokeGrace = partition.DefaultGrace

// ErrRevoked is the cause of the end of a function's context when it did not return in time after its partition was
// revoked. The partition is not released before it has returned.
var ErrRevoked = errors.New("singleton: the partition was revoked, and its grace is over")

// Partition is a part of a group's work that this process does. It is safe for concurrent use.
type Partition struct {
	index   int
	hold    *lease.Hold
	revoked chan struct{}
}

// Index says which partition it is: 0 to one less than there are.
func (p *Partition) Index() int { return p.index }

// Term returns the grant under which this process does the work.
func (p *Partition) Term() Term { return termOf(p.hold) }

// Token is greater than that of everybody who held this partition before.
func (p *Partition) Token() fence.Token { return p.hold.Token() }

// CheckpointData returns what the last holder of this partition has stored, such as an offset; nil if there is nothing. It must not
// be changed.
func (p *Partition) CheckpointData() []byte { return p.hold.CheckpointData() }

// Checkpoint stores where the work on this partition stands, for whoever holds it next: up to 64 KiB. Nobody else can store
// anything there until this process has given the partition up, and this process nothing after that. Errors: what
// lease.Hold.Checkpoint returns.
func (p *Partition) Checkpoint(ctx context.Context, data []byte) error {
	return p.hold.Checkpoint(ctx, data)
}

// Revoked is closed when the partition is wanted elsewhere, or this process is to leave. It is held still: finish what has
// begun, store a checkpoint and return.
func (p *Partition) Revoked() <-chan struct{} { return p.revoked }

// Home names the region that each partition prefers; empty for none. It is called once for each before anything else. As
// long as the members of a group name different ones, as in the middle of a deployment, homes count for nothing.
func Home(region func(partition int) string) Option { return func(s *settings) { s.home = region } }

// RevokeGrace is how long a function has to return after its partition was revoked, before its context ends: above 0.
func RevokeGrace(grace time.Duration) Option { return func(s *settings) { s.revokeGrace = grace } }

// Consume divides the partitions of a group over all processes that call it, and runs fn for each that this process holds,
// all at once, each in a goroutine of its own and under a lease, a token and a checkpoint of its own.
//
// The load is balanced within one, moves as little as that permits when a process joins, leaves, dies or stands still, and
// goes to the region that a partition prefers ([Home]) whenever it moves. The processes decide that each for itself, by
// what they see of the others: see package partition.
//
// A partition is handed over in steps. First [Partition.Revoked] is closed: the partition is held still, and fn has
// [RevokeGrace] to finish, to store a checkpoint and to return. If it has not returned then, its context ends with
// [ErrRevoked]. The lease is released when it has returned, never before, and only then somebody else starts. A lease that
// was lost ends the context at once, with [ErrLost]: then the partition is not this process's any more. A function that does not return
// after its context has ended is treated as [Config.OnStuck] says.
//
// A fn that returns nil without having been told to has nothing more to do: it is not called again, and the partition stays
// with this process as long as nobody else should have it. If fn returns an error before its context has ended, or
// panics, or calls runtime.Goexit, this process leaves the group: everything is revoked, and Consume returns that error,
// or panics with a *[PanicError], when everything has returned.
//
// When ctx ends, the process leaves in the same way: so fn should heed Revoked, or the process stays for the grace. The context of fn has the values of
// ctx.
//
// All processes name the same number of partitions, 1 to [MaxPartitions]; the first one stores it, and see [Singleton.Resize] for how to change
// it. Each needs a lease.Config.Instance of its own. The leases are GROUP/group, GROUP/member/INSTANCE and GROUP/p/00000 and
// so on; nothing else should be stored under these names. [Config.Preferred] is of no effect.
//
// Consume never returns nil. Errors: that of fn; an error that wraps the cause of ctx; INVALID partitions if the group has
// another number; INVALID for other arguments, and for an instance that another process has; [ErrStuck] and [ErrGoexit]; what
// lease.Client.Acquire and Watch return.
func (s *Singleton) Consume(ctx context.Context, group string, partitions int, fn func(context.Context, *Partition) error, opts ...Option) error {
	g, err := s.newConsumer(group, partitions, fn, opts)
	if err != nil {
		return err
	}
	if ctx.Err() == nil && !g.set.eligible() {
		<-ctx.Done()
	}
	if ctx.Err() != nil {
		return g.ended(ctx)
	}
	return g.run(ctx)
}

func (s *Singleton) newConsumer(group string, partitions int, fn func(context.Context, *Partition) error, opts []Option) (*consumer, error) {
	names, err := partition.NewNames(group)
	if err != nil {
		return nil, err
	}
	if err := partition.CheckPartitions(partitions); err != nil {
		return nil, err
	}
	if fn == nil {
		return nil, lease.Invalid("fn", "is nil", "pass the function that works on a partition")
	}
	set, err := s.settings(opts)
	if err != nil {
		return nil, err
	}
	if set.revokeGrace < 0 {
		return nil, lease.Invalid("revoke_grace", fmt.Sprintf("is %v", set.revokeGrace), "leave it out for the default")
	}
	if set.revokeGrace == 0 {
		set.revokeGrace = DefaultRevokeGrace
	}
	set.returnOnLoss, set.handOver, set.Preferred = true, false, nil
	g := &consumer{
		singleton: s, client: s.client, set: set, group: group, names: names, partitions: partitions, fn: fn,
		workers: make(map[int]*consumeWorker), signal: make(chan struct{}, 1),
	}
	if set.home != nil {
		g.homes = make([]string, partitions)
		for i := range g.homes {
			g.homes[i] = set.home(i)
		}
	}
	if g.member, err = names.Member(s.client.Instance()); err != nil {
		return nil, err
	}
	if g.metadata, err = partition.Metadata(set.Region, g.homes); err != nil {
		return nil, err
	}
	g.machine, err = partition.NewMachine(partition.MachineConfig{
		Names: names, Self: s.client.Instance(), Partitions: partitions, Homes: g.homes, Grace: set.revokeGrace,
		Retry: partition.DefaultRetry, Settle: partition.DefaultSettle,
	})
	return g, err
}

// Resize changes the number of a group's partitions. Every process must have left before, and be started with the new number
// afterwards: what belongs to a partition is the user's to move, and checkpoints stay with their index. Errors: INVALID for a bad
// number or name; CONFLICT, with their names, if there are members; what lease.Client.Acquire, List and lease.Hold.Checkpoint
// return.
func (s *Singleton) Resize(ctx context.Context, group string, partitions int) error {
	names, err := partition.NewNames(group)
	if err != nil {
		return err
	}
	document, err := partition.Group{Partitions: partitions}.Encode()
	if err != nil {
		return err
	}
	// Who joins looks at the group after it has become a member, and waits while this is held.
	hold, err := s.client.Acquire(ctx, names.Group(), lease.AcquireOptions{TTL: s.config.TTL})
	if err != nil {
		return err
	}
	defer s.release(ctx, hold)
	if data := hold.CheckpointData(); len(data) > 0 {
		if _, err := partition.ParseGroup(data); err != nil {
			return err
		}
	}
	var members []string
	for info, err := range s.client.List(ctx, lease.ListOptions{Prefix: names.MemberPrefix(), HeldOnly: true}) {
		if err != nil {
			return err
		}
		members = append(members, info.Holder.String())
	}
	if len(members) > 0 {
		e := lease.Errorf(lease.ReasonConflict, "the group %s has members: %s", group, strings.Join(members, ", "))
		e.Fix = "stop them all, change the number, and start them with the new one"
		return e
	}
	return hold.Checkpoint(ctx, document)
}

// release ends a lease under which nothing runs, with a context of its own.
func (s *Singleton) release(ctx context.Context, hold *lease.Hold) {
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseLimit)
	defer cancel()
	if err := hold.Release(own); err != nil {
		s.config.Logger.Debug("a lease runs out by itself", "resource", hold.Resource(), "token", hold.Token(), "error", err)
	}
}

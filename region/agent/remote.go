package agent

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

// Remote speaks with the quorum over the network. It connects when it is asked first, so that an agent starts without one.
type Remote struct {
	cfg lease.Config

	mu     sync.Mutex
	client *lease.Client // guarded by mu; nil: none yet
	closed bool          // guarded by mu
}

var _ Quorum = (*Remote)(nil)

// nodePatience is what a node may take beyond the wait that it was asked for.
const nodePatience = 2 * time.Second

// NewRemote prepares to speak with the nodes of a configuration. Errors: what [lease.Config.Validate] finds.
func NewRemote(cfg lease.Config) (*Remote, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Remote{cfg: cfg}, nil
}

// AgentPoll implements [Quorum].
func (r *Remote) AgentPoll(ctx context.Context, ask *writv1.AgentPollRequest) (answer *writv1.AgentPollResponse, err error) {
	client, err := r.connect(ctx)
	if err != nil {
		return nil, err
	}
	patience := ask.GetWait().AsDuration() + nodePatience
	err = client.Ask(ctx, "agent poll", patience, func(ctx context.Context, conn *grpc.ClientConn) (err error) {
		answer, err = writv1.NewRegionServiceClient(conn).AgentPoll(ctx, ask)
		return err
	})
	return answer, err
}

func (r *Remote) connect(ctx context.Context) (*lease.Client, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, lease.ErrClosed
	}
	if r.client == nil {
		client, err := lease.Dial(ctx, r.cfg)
		if err != nil {
			return nil, err
		}
		r.client = client
	}
	return r.client, nil
}

// Close ends the connections.
func (r *Remote) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.client == nil {
		return nil
	}
	return r.client.Close()
}

package guard_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/fencetest"
	"github.com/writ-io/writ/fence/guard"
	"github.com/writ-io/writ/lease/clock"
)

// durable is a guard that starts again on its own store.
type durable struct{ *rig }

func (d durable) Write(ctx context.Context, resource string, token fence.Token, storage func()) error {
	return fencetest.Admitting(d.guard).Write(ctx, resource, token, storage)
}

func (d durable) Restart(t *testing.T) {
	t.Helper()
	if d.guard != nil {
		d.kill()
	}
	var err error
	if d.guard, err = guard.New(d.config); err != nil {
		t.Fatal(err)
	}
	// It has to hear from the quorum, and to wait for what the process before it may have left under way.
	deadline := time.Now().Add(time.Minute)
	for {
		err := d.Write(t.Context(), "billing/ready", 1<<48|1, func() {})
		switch {
		case err == nil:
			return
		case !errors.Is(err, fence.ErrUnavailable) || time.Now().After(deadline):
			t.Fatal(err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func TestTheGuardConforms(t *testing.T) {
	fencetest.Run(t, fencetest.Config{
		Resources: [2]string{"billing/a", "billing/b"},
		Open: func(t *testing.T) fencetest.Guard {
			r := &rig{T: t, quorum: newQuorum(), network: &network{nodes: make(map[string]*node)}, log: &lockedBuffer{}}
			r.config = guard.Config{
				Name: "g1", Region: "eu", Form: "test", Covers: []string{"billing/*"}, Endpoints: []string{"a:1", "b:1"},
				Store: filepath.Join(t.TempDir(), "floors"), Insecure: true, Slack: time.Second, Clock: clock.System(),
				MaxParkTime: time.Minute, Logger: hclog.New(&hclog.LoggerOptions{Output: r.log, Level: hclog.Debug}),
				DialOptions: []grpc.DialOption{grpc.WithContextDialer(r.network.dial)},
			}
			r.startNodes()
			t.Cleanup(r.network.stopAll)
			d := durable{r}
			d.Restart(t)
			t.Cleanup(r.kill)
			return d
		},
	})
}

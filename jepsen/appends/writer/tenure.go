//go:build linux

package writer

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/jepsen/cluster"
	"github.com/writ-io/writ/jepsen/wait"
)

const (
	// tenureLook is how often it is asked who has the tenure.
	tenureLook = 50 * time.Millisecond
	maxBackoff = 300 * time.Millisecond
)

// tenureLock is the right to write that a failover group gives to one region at a time.
type tenureLock struct {
	group, region string
	conns         []*grpc.ClientConn
	// A tenure is a region's, so nothing fences a write of this region that comes late from the ones after it under the same
	// token. Under those up to spoilt there may be one.
	spoilt fence.Token
	fresh  bool // nothing is known to be spoilt yet, but it is known that nothing else is
}

func dialTenure(c Config) (locker, error) {
	l := &tenureLock{group: c.Group, region: c.Region, fresh: c.Fresh}
	creds, err := cluster.Credentials(c.CA, c.Cert, c.Key)
	if err != nil {
		return nil, err
	}
	for _, endpoint := range c.Endpoints {
		conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(creds), grpc.WithDisableServiceConfig(), grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: tenureLook, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxBackoff}, MinConnectTimeout: time.Second,
		}))
		if err != nil {
			l.close()
			return nil, err
		}
		l.conns = append(l.conns, conn)
	}
	return l, nil
}

func (l *tenureLock) close() {
	for _, conn := range l.conns {
		_ = conn.Close()
	}
}

// acquire asks node after node until the region has the tenure.
func (l *tenureLock) acquire(ctx context.Context) (grant, error) {
	for n := 0; wait.For(ctx, tenureLook); n++ {
		if g, err := l.ask(ctx, l.conns[n%len(l.conns)]); err == nil {
			return g, nil
		}
	}
	return grant{}, context.Cause(ctx)
}

func (l *tenureLock) ask(ctx context.Context, conn *grpc.ClientConn) (g grant, err error) {
	ctx, cancel := context.WithTimeout(ctx, ReadLimit)
	defer cancel()
	group, err := writv1.NewRegionServiceClient(conn).GetGroup(ctx, &writv1.GetGroupRequest{Name: l.group})
	if err != nil {
		return g, err
	}
	token := fence.Token(group.GetToken())
	if !l.fresh {
		l.spoilt, l.fresh = token, true
	}
	if group.GetPrimary() != l.region || token <= l.spoilt {
		return g, errors.New("the tenure is another region's, or nobody's, or a write may come late")
	}
	issued, err := writv1.NewFenceServiceClient(conn).IssueWrit(ctx, &writv1.IssueWritRequest{
		Resource: group.GetSpec().GetResource(), Token: group.GetToken(),
	})
	return grant{
		token: token, writ: issued.GetWrit(), spoil: func() { l.spoilt = token },
		release: func(context.Context) error { return nil }, // it is the region's
	}, err
}

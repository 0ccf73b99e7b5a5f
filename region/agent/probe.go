package agent

import (
	"context"
	"fmt"
	"net"
	"time"

	"google.golang.org/protobuf/proto"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// Probe looks at a group's data in this region.
type Probe interface {
	// Look answers what there is to see. A [*Failure] means that it was looked at and does not work; any other error that it
	// could not be looked at, which makes the health unknown.
	Look(ctx context.Context) (Sight, error)
}

// Sight is what a probe saw; what it does not know stays nil. A health that is unknown stands for OK.
type Sight struct {
	Health   writv1.Health
	Detail   string
	Headroom *uint32
	Position *writv1.Position
	Upstream *writv1.Position
	Lag      *time.Duration
	Writable *bool
}

// Failure says how something does not work.
type Failure struct{ Detail string }

func (f *Failure) Error() string { return f.Detail }

// Peer is an address in another region, to see whether it can be reached from here.
type Peer struct {
	Region string
	// Address is host:port.
	Address string
}

// reach tries to connect to a peer.
func (p Peer) reach(ctx context.Context) *writv1.PeerReport {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", p.Address)
	if err != nil {
		return &writv1.PeerReport{Region: p.Region, Detail: clip(err.Error(), maxEntryBytes)}
	}
	_ = conn.Close() // nothing was written
	return &writv1.PeerReport{Region: p.Region, Reachable: true}
}

// health turns what a probe saw one time after the other into what is reported.
type health struct {
	threshold int
	failures  int // in a row
}

// judge answers the health after another look.
func (h *health) judge(s Sight, failure *Failure, err error) (writv1.Health, string) {
	switch {
	case failure != nil:
		h.failures++
		if h.failures < h.threshold {
			return writv1.Health_HEALTH_DEGRADED, fmt.Sprintf("%s (%d of %d failures in a row)", failure.Detail, h.failures, h.threshold)
		}
		return writv1.Health_HEALTH_FAILED, failure.Detail
	case err != nil:
		// It says nothing of the data, so it neither counts nor ends a count.
		return writv1.Health_HEALTH_UNKNOWN, "the probe cannot be run: " + err.Error()
	}
	h.failures = 0
	if s.Health == writv1.Health_HEALTH_UNKNOWN {
		return writv1.Health_HEALTH_OK, s.Detail
	}
	return s.Health, s.Detail
}

// report writes what was seen into a report.
func (s Sight) report(r *writv1.GroupReport) {
	r.Headroom, r.Position, r.Upstream, r.Writable = s.Headroom, s.Position, s.Upstream, s.Writable
	if s.Lag != nil {
		r.Lag = durationProto(*s.Lag)
	}
}

// cloneReport keeps what is sent apart from what changes.
func cloneReport(r *writv1.GroupReport) *writv1.GroupReport { return proto.CloneOf(r) }

package postgres

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/region/agent"
)

// Probe looks at a server. What the upstream said last is remembered when it does not answer any more.
type Probe struct {
	server *Server

	mu       sync.Mutex
	upstream *writv1.Position // guarded by mu; nil: it has not said anything to this process
}

var _ agent.Probe = (*Probe)(nil)

// Probe answers a probe of the server.
func (s *Server) Probe() *Probe { return &Probe{server: s} }

// Look implements [agent.Probe].
func (p *Probe) Look(ctx context.Context) (sight agent.Sight, err error) {
	err = with(ctx, p.server.cfg.DSN, true, func(conn *pgx.Conn) error {
		st, err := where(ctx, conn)
		if err != nil {
			return err
		}
		sight.Position = st.proto()
		sight.Position.At = timestamppb.Now()
		if err := p.capacity(ctx, conn, &sight); err != nil {
			return err
		}
		if st.recovering {
			return p.standby(ctx, conn, st, &sight)
		}
		p.forget()
		var readOnly bool
		if err := conn.QueryRow(ctx, `select current_setting('default_transaction_read_only')::bool`).Scan(&readOnly); err != nil {
			return err
		}
		sight.Writable = new(!readOnly)
		sight.Detail = "primary at " + st.at.String()
		if readOnly {
			sight.Detail += ", read-only"
		}
		return nil
	})
	return sight, classify(ctx, err)
}

// capacity counts sessions against what there is room for.
func (p *Probe) capacity(ctx context.Context, conn *pgx.Conn, sight *agent.Sight) error {
	var used, most int
	err := conn.QueryRow(ctx, `select (select count(*) from pg_stat_activity where backend_type = 'client backend')::int,
		current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int`).Scan(&used, &most)
	if err != nil {
		return err
	}
	if p.server.cfg.MaxConnections > 0 {
		most = p.server.cfg.MaxConnections
	}
	if most > 0 {
		sight.Headroom = new(uint32(1000 * max(0, most-used) / most))
	}
	return nil
}

// standby looks at a server that follows another one.
func (p *Probe) standby(ctx context.Context, conn *pgx.Conn, st state, sight *agent.Sight) error {
	var streaming, caughtUp bool
	var end *string
	var told *time.Time
	var behind *float64
	err := conn.QueryRow(ctx, `
		select coalesce(r.status = 'streaming', false), r.latest_end_lsn::text, r.latest_end_time,
			coalesce(pg_last_wal_replay_lsn() >= r.latest_end_lsn, false),
			extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp())::float8
		from (select 1) one left join pg_stat_wal_receiver r on true`).Scan(&streaming, &end, &told, &caughtUp, &behind)
	if err != nil {
		return err
	}
	sight.Writable = new(false)
	p.mu.Lock()
	defer p.mu.Unlock()
	if streaming && end != nil {
		at, err := parseLSN(*end)
		if err != nil {
			return err
		}
		p.upstream = place{system: st.system, timeline: st.timeline, at: at}.proto()
		if told != nil {
			p.upstream.At = timestamppb.New(*told)
		}
	}
	sight.Upstream = p.upstream
	switch {
	case streaming && caughtUp:
		sight.Lag = new(time.Duration(0))
	case behind != nil:
		sight.Lag = new(time.Duration(max(0, *behind) * float64(time.Second)))
	}
	sight.Detail = "standby at " + st.at.String()
	if !streaming {
		// It may have all there is, and cannot know.
		sight.Health = writv1.Health_HEALTH_DEGRADED
		sight.Detail += ", its upstream does not stream to it"
	}
	return nil
}

func (p *Probe) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.upstream = nil
}

// classify tells a server that does not work from a probe that cannot be run: a server that refuses the probe's identity says
// nothing of whether it works for others.
func classify(ctx context.Context, err error) error {
	var refused *pgconn.PgError
	switch {
	case err == nil || ctx.Err() != nil:
		return err
	case errors.As(err, &refused) && (strings.HasPrefix(refused.Code, "28") || strings.HasPrefix(refused.Code, "3D") || strings.HasPrefix(refused.Code, "42")):
		return err
	}
	return &agent.Failure{Detail: err.Error()}
}

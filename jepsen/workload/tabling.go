//go:build linux

package workload

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writ-io/writ/jepsen/appends/book"
	"github.com/writ-io/writ/jepsen/appends/table"
	"github.com/writ-io/writ/jepsen/lab"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/verdict"
)

// PgAppends is the name of the workload of writers and a database.
const PgAppends = "pg-appends"

var tabling = Kind{
	Name: PgAppends, Doc: "writers append to a list in PostgreSQL, under its fence; no acknowledged append is lost",
	Rate: 0.5, Bound: lab.WriterTTL + 3*time.Second + allowance,
	Needs: func(c *lab.Config) { c.TableWriters = book.New() },
	Start: func(w World) (Workload, error) { return &tabled{world: w, follower: follower{world: w}}, nil },
	Check: func(h *record.History) []verdict.Judgement {
		return []verdict.Judgement{checkAppends(h, PgAppends, PgAppends)}
	},
}

// tabled are writers at work as long as they run; what they write is read.
type tabled struct {
	world World
	follower
	last int64 // guarded by follower.mu; the number of the last write that was read
}

func (t *tabled) Run(ctx context.Context, _ int) error { return t.follow(ctx, t.take) }

// take reads the writes that have come. The caller holds follower.mu.
func (t *tabled) take(ctx context.Context, conn *pgx.Conn) error {
	rows, err := table.After(ctx, conn, t.last)
	for _, row := range rows {
		t.last = row.N
		t.world.Record.Event(PgAppends, lab.Database, opApplied, row.Applied)
	}
	return err
}

// Close has the writers end, and reads what they have left.
func (t *tabled) Close(ctx context.Context) error {
	for _, w := range t.world.Lab.TableWriters {
		if err := w.Finish(ctx); err != nil {
			return err
		}
	}
	return t.end(ctx, PgAppends, t.take)
}

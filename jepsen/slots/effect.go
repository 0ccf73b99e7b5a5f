package slots

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/pgfence"
)

// When jobs run.
const (
	// Spec is when jobs are due, Every apart.
	Spec  = "*/2 * * * * *"
	Every = 2 * time.Second
	// Window is how old a slot may be when it is run.
	Window = 2 * time.Minute
)

// Job is a cron job, and where its effects go.
type Job struct {
	Name string
	// Table gets its rows, and the one of that name and "_head" has one with their number.
	Table string
	// Fenced has the database compare tokens.
	Fenced bool
}

// Create makes the tables of a job, and a fence around them if it is to have one.
func (j Job) Create(ctx context.Context, conn *pgx.Conn) error {
	create := fmt.Sprintf(`CREATE TABLE %[1]s (n bigint PRIMARY KEY, kind text NOT NULL, id text NOT NULL, run text NOT NULL,
		token bigint NOT NULL, attempt int NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
		CREATE INDEX ON %[1]s (id); CREATE INDEX ON %[1]s (run);
		CREATE TABLE %[1]s_head (n bigint NOT NULL); INSERT INTO %[1]s_head VALUES (0)`, j.Table)
	if _, err := conn.Exec(ctx, create); err != nil || !j.Fenced {
		return err
	}
	_, err := pgfence.Install(ctx, conn, pgfence.Installation{Resource: j.Name, Tables: []string{"public." + j.Table, "public." + j.Table + "_head"}})
	return err
}

// The kinds of rows that a slot leaves.
const (
	Began = "began"
	Ended = "ended" // its effect
)

// Effect is a row.
type Effect struct {
	// N orders the rows of a job as they were committed. There may be gaps.
	N    int64
	Kind string
	// ID is that of the slot, and Run one run of it, of all processes.
	ID, Run string
	Token   fence.Token
	Attempt int
	// At is when, by the database's clock.
	At time.Time
}

// Insert writes a row and takes its number, which holds every other row of the job up until the transaction has ended. One
// that begins is left out if the slot has had its effect; one that was perhaps written before, if it was.
func (e Effect) Insert(ctx context.Context, tx pgx.Tx, table string, again bool) (written bool, err error) {
	var n int64
	if err := tx.QueryRow(ctx, "UPDATE "+table+"_head SET n = n + 1 RETURNING n").Scan(&n); err != nil {
		return false, err
	}
	if e.Kind == Began {
		var over bool
		err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+table+" WHERE id = $1 AND kind = $2)", e.ID, Ended).Scan(&over)
		if err != nil || over {
			return false, err
		}
	}
	if again {
		var there bool
		err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+table+" WHERE run = $1 AND kind = $2)", e.Run, e.Kind).Scan(&there)
		if err != nil || there {
			return there, err
		}
	}
	_, err = tx.Exec(ctx, "INSERT INTO "+table+" (n, kind, id, run, token, attempt) VALUES ($1, $2, $3, $4, $5, $6)",
		n, e.Kind, e.ID, e.Run, int64(e.Token), e.Attempt)
	return true, err
}

// Read reads the rows of a job that come after one, by number: 0 for all.
func (j Job) Read(ctx context.Context, conn *pgx.Conn, after int64) ([]Effect, error) {
	rows, err := conn.Query(ctx, "SELECT n, kind, id, run, token, attempt, at FROM "+j.Table+" WHERE n > $1 ORDER BY n", after)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (e Effect, err error) {
		var token int64
		err = row.Scan(&e.N, &e.Kind, &e.ID, &e.Run, &token, &e.Attempt, &e.At)
		e.Token = fence.Token(token)
		return e, err
	})
}

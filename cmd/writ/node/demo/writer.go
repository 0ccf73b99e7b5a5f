package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/pgfence"
	"github.com/writ-io/writ/lease"
)

// outcome is what came of one line at every place that it was written to.
type outcome struct {
	Line string  `json:"line"`
	File answer  `json:"file"`
	Row  *answer `json:"row,omitempty"` // nil: there is no database
}

// answer is what a write gets.
type answer struct {
	Taken bool `json:"taken"`
	// How it was refused, in the words of whoever refused it; with Have and Floor if the token was stale.
	How   string      `json:"how,omitempty"`
	Have  fence.Token `json:"have,omitempty"`
	Floor fence.Token `json:"floor,omitempty"`
}

func (a answer) String() string {
	switch {
	case a.Taken:
		return "taken"
	case a.Floor == 0:
		return a.How
	}
	return fmt.Sprintf("%s: %s is below the floor %s", a.How, a.Have, a.Floor)
}

// stale reports whether the write was refused for its token.
func (a answer) stale() bool { return !a.Taken && a.Have != 0 && a.Have < a.Floor }

// writer writes lines to everything that is guarded. It looks at no lease: it presents what it has been given.
type writer struct {
	name string
	url  string        // of the guard before the store
	pool *pgxpool.Pool // nil: there is no database
	rows *pgfence.Pool // nil as well
	tx   pgx.Tx        // begun for the next line; nil: none

	count int // lines so far
}

// newWriter returns a writer; dsn is empty if there is no database.
func newWriter(ctx context.Context, name, url, dsn string) (w *writer, err error) {
	w = &writer{name: name, url: url}
	if dsn == "" {
		return w, nil
	}
	if w.pool, err = pgxpool.New(ctx, dsn); err != nil {
		return nil, err
	}
	if w.rows, err = pgfence.NewPool(w.pool, pgfence.Config{}); err != nil {
		w.pool.Close()
		return nil, err
	}
	return w, nil
}

func (w *writer) close(ctx context.Context) {
	if w.tx != nil {
		_ = w.tx.Rollback(ctx) // or else its connection is closed, which rolls back as well
	}
	if w.pool != nil {
		w.pool.Close()
	}
}

// begin begins the transaction for the next line, if there is a database.
func (w *writer) begin(ctx context.Context, hold *lease.Hold) (err error) {
	if w.rows == nil || w.tx != nil {
		return nil
	}
	w.tx, err = w.rows.BeginTx(ctx, fence.Write{Resource: string(hold.Resource()), Token: hold.Token()}, pgx.TxOptions{})
	return err
}

// write writes the next line to the file and to the table. A refusal is no error.
func (w *writer) write(ctx context.Context, hold *lease.Hold) (o outcome, err error) {
	w.count++
	o.Line = fmt.Sprintf("%s under %s, line %d", w.name, hold.Token(), w.count)
	writ, err := hold.Writ(ctx)
	if err != nil {
		return o, err
	}
	if o.File, err = post(ctx, w.url, writ, o.Line); err != nil || w.rows == nil {
		return o, err
	}
	row, err := w.insert(ctx, hold, o.Line)
	o.Row = &row
	return o, err
}

// post sends a line to the guard, with the writ that the quorum has signed.
func post(ctx context.Context, url, writ, line string) (a answer, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(line))
	if err != nil {
		return a, err
	}
	req.Header.Set(fence.HeaderWrit, writ)
	resp, err := do(req)
	if err != nil {
		return a, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusOK {
		return answer{Taken: true}, nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxFileBytes))
	if err != nil {
		return a, err
	}
	var p fence.Problem
	if err := json.Unmarshal(body, &p); err != nil || p.Reason == "" {
		return a, fmt.Errorf("the file's write is answered %s: %.200q", resp.Status, body)
	}
	a.How = fmt.Sprintf("%d %s", resp.StatusCode, p.Reason)
	if stale := (*fence.StaleError)(nil); errors.As(p.Err(), &stale) && p.Resource == resource {
		a.Have, a.Floor = stale.Have, stale.Floor
		return a, nil
	}
	return a, fmt.Errorf("%s: %s", a.How, p.Detail)
}

// insert adds a row, in the transaction that was begun for it or in one of its own.
func (w *writer) insert(ctx context.Context, hold *lease.Hold, line string) (a answer, err error) {
	if err = w.begin(ctx, hold); err == nil {
		err = w.commit(ctx, line)
	}
	stale, told := (*fence.StaleError)(nil), (*pgconn.PgError)(nil)
	switch {
	case err == nil:
		return answer{Taken: true}, nil
	case !errors.As(err, &stale) || stale.Resource != resource:
		return a, err
	case !errors.As(err, &told):
		return a, fmt.Errorf("refused before the table was asked: %w", err)
	}
	return answer{How: "SQLSTATE " + told.Code, Have: stale.Have, Floor: stale.Floor}, nil
}

// commit ends the open transaction with a row.
func (w *writer) commit(ctx context.Context, line string) error {
	tx := w.tx
	w.tx = nil
	_, err := tx.Exec(ctx, "INSERT INTO "+table+" (line) VALUES ($1)", line)
	if err != nil {
		_ = tx.Rollback(ctx) // or else its connection is closed, which rolls back as well
		return pgfence.FromError(err)
	}
	return pgfence.FromError(tx.Commit(ctx))
}

package pgfence

import (
	"cmp"
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writ-io/writ/fence"
)

// State is where the fence of one resource stands.
type State struct {
	Resource string `json:"resource"`
	// Floor is the lowest token that is admitted; it is 1 until the first bump.
	Floor fence.Token `json:"-"`
	// Drained: every transaction under an older token has ended. While it is below Floor, nobody can write.
	Drained fence.Token `json:"-"`
	// FloorDecimal and DrainedDecimal are the same for machines.
	FloorDecimal   string    `json:"floor"`
	DrainedDecimal string    `json:"drained"`
	RaisedAt       time.Time `json:"raisedAt"`
	RaisedBy       string    `json:"raisedBy"`
	// Tables are those protected for it.
	Tables []string `json:"tables"`
	// Holders are the transactions that are admitted at the moment.
	Holders []Holder `json:"holders"`
}

// Status lists the fences of a schema by resource. It takes the owner of the schema or a superuser.
func Status(ctx context.Context, conn Conn, schema string) (states []State, err error) {
	schema = cmp.Or(schema, DefaultSchema)
	if err := checkSchema(schema); err != nil {
		return nil, err
	}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		states, err = status(ctx, tx, schema)
		return err
	})
	return states, installed(err, schema)
}

func status(ctx context.Context, tx pgx.Tx, schema string) ([]State, error) {
	tables, err := protectedTables(ctx, tx, schema)
	if err != nil {
		return nil, err
	}
	on, err := triggers(ctx, tx)
	if err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, render("SELECT resource, floor, drained, raised_at, raised_by FROM {schema}.fence ORDER BY resource", schema))
	if err != nil {
		return nil, err
	}
	states, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s State, err error) {
		// Not by way of Token's Scan, which would refuse the floor before the first bump.
		err = row.Scan(&s.Resource, (*int64)(&s.Floor), (*int64)(&s.Drained), &s.RaisedAt, &s.RaisedBy)
		s.FloorDecimal, s.DrainedDecimal = s.Floor.Decimal(), s.Drained.Decimal()
		s.Tables, s.Holders = []string{}, []Holder{}
		return s, err
	})
	if err != nil {
		return nil, err
	}
	for i := range states {
		s := &states[i]
		for _, r := range tables {
			if on[r.oid].resource() == s.Resource {
				s.Tables = append(s.Tables, r.String())
			}
		}
		err := pgxTx{tx}.query(ctx, func(dest func(...any) error) error {
			h, err := scanHolder(dest)
			s.Holders = append(s.Holders, h)
			return err
		}, render("SELECT pid, prepared, role, application, began FROM {schema}.holders($1)", schema), s.Resource)
		if err != nil {
			return nil, err
		}
	}
	return states, nil
}

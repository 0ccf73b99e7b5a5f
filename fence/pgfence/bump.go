package pgfence

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writ-io/writ/fence"
)

// Proof is how it was brought about that no transaction under an older token runs any more.
type Proof string

// The proofs.
const (
	// Acked: every older transaction had ended by itself.
	Acked Proof = "acked"
	// Cut: some had to be terminated. They have been rolled back, or had committed before they could be.
	Cut Proof = "cut"
)

// Bumped is what a bump did. However it was done, when a bump has answered, no transaction under an older token runs in
// this database, and none can write any more.
type Bumped struct {
	Proof Proof
	// Ended are the transactions whose backends were terminated.
	Ended []Holder
}

// Holder is a transaction that has been admitted by a fence and has not ended.
type Holder struct {
	// PID is its backend; 0 for a prepared transaction.
	PID int `json:"pid,omitempty"`
	// Prepared is the name of a prepared transaction; only COMMIT PREPARED and ROLLBACK PREPARED end it.
	Prepared string `json:"prepared,omitempty"`
	Role     string `json:"role,omitempty"`
	// Application is its application_name.
	Application string `json:"application,omitempty"`
	// Began is when it began by the database's clock; zero if this role may not know.
	Began time.Time `json:"began,omitzero"`
}

func (h Holder) String() string {
	if h.PID == 0 {
		return fmt.Sprintf("prepared transaction %q of role %q", h.Prepared, h.Role)
	}
	return fmt.Sprintf("backend %d of role %q (%s)", h.PID, h.Role, h.Application)
}

// Bump raises the fence of a resource to a token, waits until every transaction under an older one has ended, and after
// DrainTimeout terminates those that have not. A floor that is above the token is a [*fence.StaleError]; transactions
// that cannot be ended are a [*BusyError]. Bumping again to the same token is answered at once.
func Bump(ctx context.Context, pool *pgxpool.Pool, cfg Config, resource string, token fence.Token) (Bumped, error) {
	return bump(ctx, pgxSession{pool}, cfg, resource, token)
}

// BumpSQL is [Bump] through database/sql.
func BumpSQL(ctx context.Context, db *sql.DB, cfg Config, resource string, token fence.Token) (Bumped, error) {
	return bump(ctx, sqlSession{db}, cfg, resource, token)
}

// bumping is a bump under way.
type bumping struct {
	session
	cfg      Config
	opts     BumpOptions
	resource string
	token    fence.Token
}

func bump(ctx context.Context, s session, cfg Config, resource string, token fence.Token) (Bumped, error) {
	if err := errors.Join(cfg.Validate(), checkResource(resource), checkToken(token)); err != nil {
		return Bumped{}, err
	}
	b := &bumping{session: s, cfg: cfg, opts: cfg.Bump.withDefaults(), resource: resource, token: token}
	drained, err := b.raise(ctx)
	if err != nil {
		return Bumped{}, err
	}
	if drained {
		return Bumped{Proof: Acked}, nil
	}
	return b.drainOrCut(ctx)
}

// raise makes the database refuse older tokens from its commit on. It waits for no writer.
func (b *bumping) raise(ctx context.Context) (drained bool, err error) {
	err = b.inTx(ctx, b.opts.DrainTimeout, func(ctx context.Context, t tx) error {
		var floor, done int64
		return t.query(ctx, func(dest func(...any) error) error {
			err := dest(&floor, &done)
			drained = done >= int64(b.token)
			return err
		}, b.cfg.sql("select floor, drained from {schema}.raise_floor($1, $2)"), b.resource, int64(b.token))
	})
	if timedOut(ctx, err) {
		return false, &BusyError{Resource: b.resource, Cause: fmt.Errorf("the fence row is locked: %w", err)}
	}
	return drained, installed(err, b.cfg.schema())
}

func (b *bumping) drainOrCut(ctx context.Context) (Bumped, error) {
	err := b.drain(ctx, b.opts.DrainTimeout)
	if err == nil {
		return Bumped{Proof: Acked}, nil
	}
	if !timedOut(ctx, err) {
		return Bumped{}, FromError(err)
	}
	done := Bumped{Proof: Cut}
	for round := 0; !b.opts.NoCut && round < b.opts.CutRounds; round++ {
		ended, err := b.cut(ctx)
		if err != nil {
			if hasState(err, stateDenied) {
				return Bumped{}, b.busy(ctx, err)
			}
			return Bumped{}, FromError(err)
		}
		done.Ended = append(done.Ended, ended...)
		if err = b.drain(ctx, b.opts.CutTimeout); err == nil {
			return done, nil
		}
		if !timedOut(ctx, err) {
			return Bumped{}, FromError(err)
		}
	}
	return Bumped{}, b.busy(ctx, nil)
}

// drain waits for older transactions. While it waits, those that would write join the queue behind it, so that a stream
// of short ones cannot keep it waiting.
func (b *bumping) drain(ctx context.Context, wait time.Duration) error {
	var floor int64
	err := b.inTx(ctx, wait, func(ctx context.Context, t tx) error {
		return t.query(ctx, func(dest func(...any) error) error { return dest(&floor) },
			b.cfg.sql("select {schema}.drain($1)"), b.resource)
	})
	if err == nil && fence.Token(floor) > b.token {
		return &fence.StaleError{Resource: b.resource, Have: b.token, Floor: fence.Token(floor)}
	}
	return err
}

func (b *bumping) cut(ctx context.Context) (ended []Holder, err error) {
	err = b.inTx(ctx, b.opts.CutTimeout, func(ctx context.Context, t tx) error {
		return t.query(ctx, func(dest func(...any) error) error {
			var terminated bool
			h, err := scanHolder(dest, &terminated)
			if terminated {
				ended = append(ended, h)
			}
			return err
		}, b.cfg.sql("select pid, prepared, role, application, began, terminated from {schema}.cut($1, $2)"), b.resource, int64(b.token))
	})
	if timedOut(ctx, err) {
		return nil, nil // another bump holds the row: it is cutting, too
	}
	return ended, err
}

func (b *bumping) busy(ctx context.Context, cause error) error {
	holders, err := b.holders(ctx)
	if err != nil && cause == nil {
		cause = err
	}
	return &BusyError{Resource: b.resource, Holders: holders, Cause: cause}
}

func (b *bumping) holders(ctx context.Context) (found []Holder, err error) {
	err = b.inTx(ctx, b.opts.CutTimeout, func(ctx context.Context, t tx) error {
		return t.query(ctx, func(dest func(...any) error) error {
			h, err := scanHolder(dest)
			found = append(found, h)
			return err
		}, b.cfg.sql("select pid, prepared, role, application, began from {schema}.holders($1)"), b.resource)
	})
	return found, err
}

// scanHolder reads the columns of a holder and what comes after them.
func scanHolder(dest func(...any) error, more ...any) (Holder, error) {
	var pid sql.Null[int64]
	var prepared, role, application sql.Null[string]
	var began sql.Null[time.Time]
	err := dest(append([]any{&pid, &prepared, &role, &application, &began}, more...)...)
	return Holder{PID: int(pid.V), Prepared: prepared.V, Role: role.V, Application: application.V, Began: began.V}, err
}

// Drained answers below which token every transaction has ended and none is admitted any more; 1 before the first bump. It takes
// the right to raise, or to present. A standby answers, too.
func Drained(ctx context.Context, db Querier, schema, resource string) (fence.Token, error) {
	schema = cmp.Or(schema, DefaultSchema)
	if err := cmp.Or(checkSchema(schema), checkResource(resource)); err != nil {
		return 0, err
	}
	var drained int64
	err := db.QueryRow(ctx, render("SELECT drained FROM {schema}.state($1)", schema), resource).Scan(&drained)
	return fence.Token(drained), installed(err, schema)
}

// Querier is a pool, a connection or a transaction of pgx.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

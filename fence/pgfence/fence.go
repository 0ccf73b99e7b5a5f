package pgfence

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease/clock"
)

// gate is what fenced pools of either kind have in common: it finds out whether the fence has been raised to a token
// before a transaction presents it.
type gate struct {
	session
	cfg Config

	mu sync.Mutex
	// raised are the newest tokens to which fences are known to have been raised. Guarded by mu.
	raised map[string]known
}

// known is good until an instant, unless a write says otherwise before.
type known struct {
	token fence.Token
	until clock.Instant
}

func newGate(s session, cfg Config) (*gate, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System()
	}
	if cfg.Trust == 0 {
		cfg.Trust = DefaultTrust
	}
	return &gate{session: s, cfg: cfg, raised: make(map[string]known)}, nil
}

// credential returns the token that w presents, after verifying it if it is signed.
func (g *gate) credential(w fence.Write) (fence.Token, error) {
	if err := checkResource(w.Resource); err != nil {
		return 0, err
	}
	if (w.Writ == "") == w.Token.IsZero() {
		return 0, fmt.Errorf("%w: present either a writ or a token", ErrInvalid)
	}
	if w.Writ == "" {
		return w.Token, checkToken(w.Token)
	}
	if g.cfg.Verifier == nil {
		return 0, fmt.Errorf("%w: a writ was presented but Config.Verifier is not set", ErrInvalid)
	}
	signed, err := g.cfg.Verifier.Verify(w.Writ)
	if err != nil {
		return 0, err
	}
	return signed.Token, signed.Require(fence.Expected{Issuer: g.cfg.Issuer, Resource: w.Resource})
}

// prepare returns SQL that presents w, to be run first in a transaction that begins after prepare has returned. So the
// transaction sees everything that was written under older tokens.
func (g *gate) prepare(ctx context.Context, w fence.Write) (string, error) {
	token, err := g.credential(w)
	if err != nil {
		return "", err
	}
	if err := g.ensure(ctx, w.Resource, token); err != nil {
		return "", err
	}
	return presenting(g.cfg.schema(), w.Resource, token), nil
}

// ensure returns when the fence has been raised to the token and everything older has ended.
func (g *gate) ensure(ctx context.Context, resource string, token fence.Token) error {
	asked := g.cfg.Clock.Now()
	g.mu.Lock()
	have := g.raised[resource]
	g.mu.Unlock()
	if have.token > token {
		return &fence.StaleError{Resource: resource, Have: token, Floor: have.token}
	}
	if have.token == token && asked.Before(have.until) {
		return nil
	}
	floor, drained, err := g.state(ctx, resource)
	if err != nil {
		return err
	}
	if floor > token {
		g.remember(resource, known{token: floor, until: asked}) // asked again for the floor itself
		return &fence.StaleError{Resource: resource, Have: token, Floor: floor}
	}
	if drained < token {
		if _, err := bump(ctx, g.session, g.cfg, resource, token); err != nil {
			return err
		}
	}
	g.remember(resource, known{token: token, until: asked.Add(g.cfg.Trust)})
	return nil
}

func (g *gate) state(ctx context.Context, resource string) (floor, drained fence.Token, err error) {
	err = g.inTx(ctx, g.cfg.Bump.withDefaults().DrainTimeout, func(ctx context.Context, t tx) error {
		return t.query(ctx, func(dest func(...any) error) error {
			return dest((*int64)(&floor), (*int64)(&drained))
		}, g.cfg.sql("select floor, drained from {schema}.state($1)"), resource)
	})
	if hasState(err, stateDenied) {
		err = fmt.Errorf("%w: have it granted with writ-guard sql grant: %w", ErrNotTrusted, err)
	}
	return floor, drained, installed(err, g.cfg.schema())
}

func (g *gate) remember(resource string, k known) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if k.token >= g.raised[resource].token {
		g.raised[resource] = k
	}
}

// mapped is FromError; what the database contradicts is forgotten.
func (g *gate) mapped(resource string, err error) error {
	err = FromError(err)
	if errors.Is(err, ErrNotRaised) {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.raised, resource)
	}
	return err
}

// Pool begins fenced transactions through a pgx pool. It is safe for concurrent use; keep one for each pool, because it
// remembers to which tokens it has raised the fence.
type Pool struct {
	pool *pgxpool.Pool
	gate *gate
}

// NewPool returns a fenced pool. It does not take charge of pool, which has to be closed after it.
func NewPool(pool *pgxpool.Pool, cfg Config) (*Pool, error) {
	gate, err := newGate(pgxSession{pool}, cfg)
	if err != nil {
		return nil, err
	}
	return &Pool{pool: pool, gate: gate}, nil
}

// BeginTx begins a transaction that presents w. If w is newer than the floor, the fence is raised first, see [Bump]; if it
// is older, that is a [*fence.StaleError]. Afterwards each statement that writes to a protected table is checked by the
// database; put [FromError] around its errors. The transaction holds up the next bump from its first write until its end.
func (p *Pool) BeginTx(ctx context.Context, w fence.Write, opts pgx.TxOptions) (pgx.Tx, error) {
	present, err := p.gate.prepare(ctx, w)
	if err != nil {
		return nil, err
	}
	// In one message with begin it costs no round trip.
	opts.BeginQuery = beginQuery(opts) + "; " + present
	return p.pool.BeginTx(ctx, opts)
}

// Run runs do in a transaction of [Pool.BeginTx] and commits it, or rolls it back if do fails. Errors have gone through
// [FromError]. Like all that commits, a failure without an SQLSTATE can mean that it was committed after all; a bump to a
// newer token settles which.
func (p *Pool) Run(ctx context.Context, w fence.Write, opts pgx.TxOptions, do func(pgx.Tx) error) error {
	tx, err := p.BeginTx(ctx, w, opts)
	if err != nil {
		return err
	}
	defer func() {
		// Of no effect after a commit. If it fails the connection is closed, which rolls back as well.
		ctx, cancel := bounded(context.WithoutCancel(ctx), 0)
		defer cancel()
		_ = tx.Rollback(ctx)
	}()
	if err = do(tx); err == nil {
		err = tx.Commit(ctx)
	}
	return p.gate.mapped(w.Resource, err)
}

// Present presents w in an open transaction, beside what it has presented for other resources. It takes another connection
// of the pool to see whether the fence has been raised to it.
func (p *Pool) Present(ctx context.Context, tx pgx.Tx, w fence.Write) error {
	present, err := p.gate.prepare(ctx, w)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, present)
	return err
}

// beginQuery is what pgx would begin with.
func beginQuery(opts pgx.TxOptions) string {
	if opts.BeginQuery != "" {
		return opts.BeginQuery
	}
	q := "begin"
	if opts.IsoLevel != "" {
		q += " isolation level " + string(opts.IsoLevel)
	}
	if opts.AccessMode != "" {
		q += " " + string(opts.AccessMode)
	}
	if opts.DeferrableMode != "" {
		q += " " + string(opts.DeferrableMode)
	}
	return q
}

// DB begins fenced transactions through database/sql; the driver has to be one for PostgreSQL, such as pgx/v5/stdlib. It
// is safe for concurrent use.
type DB struct {
	db   *sql.DB
	gate *gate
}

// NewDB returns a fenced database. It does not take charge of db, which has to be closed after it.
func NewDB(db *sql.DB, cfg Config) (*DB, error) {
	gate, err := newGate(sqlSession{db}, cfg)
	if err != nil {
		return nil, err
	}
	return &DB{db: db, gate: gate}, nil
}

// BeginTx is [Pool.BeginTx] for database/sql. It costs one round trip more.
func (d *DB) BeginTx(ctx context.Context, w fence.Write, opts *sql.TxOptions) (*sql.Tx, error) {
	present, err := d.gate.prepare(ctx, w)
	if err != nil {
		return nil, err
	}
	tx, err := d.db.BeginTx(ctx, opts)
	if err != nil {
		return nil, err
	}
	if _, err := tx.ExecContext(ctx, present); err != nil {
		_ = tx.Rollback() // if it fails the connection is closed, which rolls back as well
		return nil, err
	}
	return tx, nil
}

// Run is [Pool.Run] for database/sql.
func (d *DB) Run(ctx context.Context, w fence.Write, opts *sql.TxOptions, do func(*sql.Tx) error) error {
	tx, err := d.BeginTx(ctx, w, opts)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // of no effect after a commit
	if err = do(tx); err == nil {
		err = tx.Commit()
	}
	return d.gate.mapped(w.Resource, err)
}

// BeginTx begins one fenced transaction. It remembers nothing, and so asks the database for the floor each time: where
// there are many, use a [Pool].
func BeginTx(ctx context.Context, pool *pgxpool.Pool, w fence.Write, cfg Config, opts pgx.TxOptions) (pgx.Tx, error) {
	p, err := NewPool(pool, cfg)
	if err != nil {
		return nil, err
	}
	return p.BeginTx(ctx, w, opts)
}

// BeginSQL is [BeginTx] through database/sql.
func BeginSQL(ctx context.Context, db *sql.DB, w fence.Write, cfg Config, opts *sql.TxOptions) (*sql.Tx, error) {
	d, err := NewDB(db, cfg)
	if err != nil {
		return nil, err
	}
	return d.BeginTx(ctx, w, opts)
}

package pgfence

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/writ-io/writ/fence"
)

const (
	zombieRefused  = "refused"
	zombieAdmitted = "admitted"
)

// tryZombie tries each kind of write without a token and with one from the past. The writes concern no row, but the
// triggers of a statement do not depend on that. TRUNCATE is left to the catalog, because it would lock out readers.
func (v *verifying) tryZombie(ctx context.Context, r relation, resource string) (string, error) {
	writes, err := v.emptyWrites(ctx, r)
	if err != nil {
		return "", err
	}
	var floor int64
	err = v.tx.QueryRow(ctx, render("SELECT floor FROM {schema}.fence WHERE resource = $1", v.Schema), resource).Scan(&floor)
	if errors.Is(err, pgx.ErrNoRows) {
		v.find(Weak, r.String(), fmt.Sprintf("there is no fence for resource %q, so that every write is refused", resource), "run writ-guard sql install again for it")
	} else if err != nil {
		return "", err
	}
	tokens := []fence.Token{0}
	if floor > 1 {
		tokens = append(tokens, fence.Token(floor-1))
	}
	for _, token := range tokens {
		for _, write := range writes {
			result, err := v.attempt(ctx, resource, token, write)
			if err != nil || result != zombieRefused {
				return result, err
			}
		}
	}
	return zombieRefused, nil
}

// attempt runs one write in a savepoint that is always rolled back.
func (v *verifying) attempt(ctx context.Context, resource string, token fence.Token, write string) (result string, err error) {
	savepoint, err := v.tx.Begin(ctx)
	if err != nil {
		return "", err
	}
	// Nothing that went before in this session may stand in for a token.
	present := "set local " + settingName(v.Schema, resource) + " = ''"
	if token > 0 {
		present = presenting(v.Schema, resource, token)
	}
	if _, err = savepoint.Exec(ctx, present); err == nil {
		_, err = savepoint.Exec(ctx, write)
	}
	state, _ := stateOf(err)
	switch {
	case err == nil:
		result = zombieAdmitted
	case strings.HasPrefix(state, "WF"):
		result = zombieRefused
	case state == stateDenied:
		result = "not tried: this role may not write to it"
	case state == stateLockTimedOut:
		result = "not tried: the table is locked"
	case state == "":
		return "", err // the connection
	default:
		result = "not tried: " + err.Error()
	}
	return result, savepoint.Rollback(ctx)
}

// emptyWrites are statements of each kind that touch no row.
func (v *verifying) emptyWrites(ctx context.Context, r relation) ([]string, error) {
	var column *string
	err := v.tx.QueryRow(ctx, `SELECT min(a.attname::text) FROM pg_attribute a
		WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND a.attidentity = ''`, r.oid).Scan(&column)
	writes := []string{"DELETE FROM " + r.String() + " WHERE false"}
	if column != nil {
		c := pgx.Identifier{*column}.Sanitize()
		writes = append(writes,
			fmt.Sprintf("UPDATE %s SET %s = %s WHERE false", r, c, c),
			fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM %s WHERE false", r, c, c, r))
	}
	return writes, err
}

// TryZombie tries to write under old tokens to every table that is protected for a resource, as [Verify] does, in a transaction
// that changes nothing and is rolled back. It lists no table if none is protected. It takes the owner of the schema, with rights
// to write to the tables, or a superuser.
func TryZombie(ctx context.Context, conn Conn, schema, resource string) ([]TableState, error) {
	schema = cmp.Or(schema, DefaultSchema)
	if err := cmp.Or(checkSchema(schema), checkResource(resource)); err != nil {
		return nil, err
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return nil, err
	}
	v := &verifying{tx: tx, Check: Check{Schema: schema}}
	tried, err := v.tryTables(ctx, resource)
	if e := tx.Rollback(context.WithoutCancel(ctx)); err == nil {
		err = e
	}
	return tried, installed(err, schema)
}

func (v *verifying) tryTables(ctx context.Context, resource string) (tried []TableState, err error) {
	if _, err := v.tx.Exec(ctx, verifyLimits); err != nil {
		return nil, err
	}
	tables, err := protectedTables(ctx, v.tx, v.Schema)
	if err != nil {
		return nil, err
	}
	on, err := triggers(ctx, v.tx)
	if err != nil {
		return nil, err
	}
	for _, r := range tables {
		if on[r.oid].resource() != resource {
			continue
		}
		result, err := v.tryZombie(ctx, r, resource)
		if err != nil {
			return nil, err
		}
		tried = append(tried, TableState{Table: r.String(), Resource: resource, Protected: result == zombieRefused, Zombie: result})
	}
	return tried, nil
}

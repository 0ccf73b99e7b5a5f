package pgfence

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// Right is something that a role may do with a fence.
type Right string

// The rights.
const (
	// Present: the role is trusted to present the tokens that were granted to it. Nothing checks that in SQL.
	Present Right = "present"
	// Raise: it may raise fences, which locks out everybody with an older token.
	Raise Right = "raise"
	// End: it may terminate the backends of older transactions while a fence is being raised.
	End Right = "cut"
)

// functionsOf are what it takes to exercise a right.
var functionsOf = map[Right][]string{
	Present: {"set_token(text, bigint)", "state(text)"},
	Raise:   {"state(text)", "raise_floor(text, bigint)", "drain(text)", "holders(text)"},
	End:     {"cut(text, bigint)", "holders(text)"},
}

// Grant gives rights to a role, which is what makes tokens from it trusted.
func Grant(ctx context.Context, conn Conn, schema, role string, rights ...Right) error {
	return setRights(ctx, conn, schema, role, "GRANT", "TO", rights)
}

// Revoke takes rights from a role. What another right needs as well has to be granted again.
func Revoke(ctx context.Context, conn Conn, schema, role string, rights ...Right) error {
	return setRights(ctx, conn, schema, role, "REVOKE", "FROM", rights)
}

// Lacking answers the role of a connection, and which rights it has not got, in the order in which they were asked for. Errors:
// [ErrInvalid] of a right that does not exist, [ErrNotInstalled].
func Lacking(ctx context.Context, db Querier, schema string, rights ...Right) (role string, lacking []Right, err error) {
	schema = cmp.Or(schema, DefaultSchema)
	if err := checkSchema(schema); err != nil {
		return "", nil, err
	}
	for _, right := range rights {
		functions, err := right.functions()
		if err != nil {
			return "", nil, err
		}
		for i, f := range functions {
			functions[i] = render("{schema}."+f, schema)
		}
		// Without the schema's own right a function cannot even be looked up.
		const sql = `SELECT current_user, CASE WHEN pg_catalog.has_schema_privilege($1, 'USAGE')
			THEN (SELECT pg_catalog.bool_and(pg_catalog.has_function_privilege(f, 'EXECUTE')) FROM pg_catalog.unnest($2::text[]) f) ELSE false END`
		var has bool
		if err := db.QueryRow(ctx, sql, schema, functions).Scan(&role, &has); err != nil {
			return "", nil, installed(err, schema)
		}
		if !has {
			lacking = append(lacking, right)
		}
	}
	return role, lacking, nil
}

// functions are what it takes to exercise a right.
func (r Right) functions() ([]string, error) {
	functions, known := functionsOf[r]
	if !known {
		return nil, fmt.Errorf("%w: right %.40q: use present, raise or cut", ErrInvalid, string(r))
	}
	return slices.Clone(functions), nil
}

func setRights(ctx context.Context, conn Conn, schema, role, verb, preposition string, rights []Right) error {
	schema = cmp.Or(schema, DefaultSchema)
	if err := checkSchema(schema); err != nil {
		return err
	}
	if role == "" || len(rights) == 0 {
		return fmt.Errorf("%w: name a role and rights of present, raise, cut", ErrInvalid)
	}
	if role == "public" { // which PostgreSQL takes for everybody even in quotes
		return fmt.Errorf("%w: role public is everybody: name roles that are trusted", ErrInvalid)
	}
	to := preposition + " " + pgx.Identifier{role}.Sanitize()
	sql := ""
	if verb == "GRANT" {
		sql = "GRANT USAGE ON SCHEMA {schema} " + to + ";"
	}
	for _, right := range rights {
		functions, err := right.functions()
		if err != nil {
			return err
		}
		for _, f := range functions {
			sql += verb + " EXECUTE ON FUNCTION {schema}." + f + " " + to + ";"
		}
	}
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, render(sql, schema))
		return err
	})
	return installed(err, schema)
}

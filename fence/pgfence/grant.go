package pgfence

import (
	"cmp"
	"context"
	"fmt"

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
		functions, known := functionsOf[right]
		if !known {
			return fmt.Errorf("%w: right %.40q: use present, raise or cut", ErrInvalid, string(right))
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

package pgfence

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// TriggerName is the trigger that protects a table.
const TriggerName = "writ_fence"

// statementTrigger is the pg_trigger.tgtype of BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE FOR EACH STATEMENT.
const statementTrigger = 2 + 4 + 8 + 16 + 32

// Conn is what administration needs: a [pgx.Conn], a pgxpool.Pool or a pgxpool.Conn.
type Conn interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}

// relation is a table as the catalog knows it.
type relation struct {
	oid          uint32
	schema, name string
	kind         string
	temporary    bool
	owner        string
	// ownerLogsIn: the owner is a role of people or programs, and not a superuser.
	ownerLogsIn bool
}

func (r relation) String() string { return pgx.Identifier{r.schema, r.name}.Sanitize() }

// trigger is what is found on a table under the name of TriggerName.
type trigger struct {
	enabled     string
	kind        int
	function    uint32
	args        []string
	conditional bool
	someColumns bool
}

// wrong tells what keeps the trigger from protecting the table for its resource; empty: nothing.
func (t trigger) wrong(schema string, checkWrite uint32) string {
	resource := t.resource()
	want := []string{resource, settingName(schema, resource), fmt.Sprint(lockKey(schema, resource))}
	switch {
	case t.enabled == "D":
		return "its trigger is disabled"
	case t.enabled != "A":
		return "its trigger does not fire for replication roles"
	case t.kind != statementTrigger || t.conditional || t.someColumns:
		return "its trigger does not fire for every statement"
	case t.function != checkWrite:
		return "its trigger calls another function"
	case fmt.Sprint(t.args) != fmt.Sprint(want):
		return "its trigger has other arguments than it was installed with"
	default:
		return ""
	}
}

func (t trigger) resource() string {
	if len(t.args) == 0 {
		return ""
	}
	return t.args[0]
}

const selectRelation = `SELECT c.oid, n.nspname, c.relname, c.relkind::text, c.relpersistence = 't', r.rolname, r.rolcanlogin AND NOT r.rolsuper
	FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace JOIN pg_catalog.pg_roles r ON r.oid = c.relowner `

func scanRelation(row pgx.CollectableRow) (r relation, err error) {
	err = row.Scan(&r.oid, &r.schema, &r.name, &r.kind, &r.temporary, &r.owner, &r.ownerLogsIn)
	return r, err
}

func relations(ctx context.Context, tx pgx.Tx, where string, args ...any) ([]relation, error) {
	rows, err := tx.Query(ctx, selectRelation+where+" ORDER BY n.nspname, c.relname", args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanRelation)
}

// resolve finds tables by name. PostgreSQL itself reads the names, as data, so that there is one opinion on quoting.
func resolve(ctx context.Context, tx pgx.Tx, schema string, names []string) ([]relation, error) {
	var found []relation
	for _, name := range names {
		var oid *uint32
		if err := tx.QueryRow(ctx, "SELECT to_regclass($1)::oid", name).Scan(&oid); err != nil {
			return nil, fmt.Errorf("%w: table %.200q: %w", ErrInvalid, name, err)
		}
		if oid == nil {
			return nil, fmt.Errorf("%w: there is no table %.200q: write schema.table, and double quotes where the name needs them", ErrInvalid, name)
		}
		these, err := relations(ctx, tx, "WHERE c.oid = $1", *oid)
		if err != nil {
			return nil, err
		}
		for _, r := range these {
			if err := protectable(r, schema); err != nil {
				return nil, err
			}
			found = append(found, r)
		}
	}
	return found, nil
}

func protectable(r relation, schema string) error {
	switch {
	case r.kind == "f":
		return fmt.Errorf("%w: %s is a foreign table: protect it in its own database", ErrInvalid, r)
	case r.kind != "r" && r.kind != "p":
		return fmt.Errorf("%w: %s is not a table: name the tables behind it", ErrInvalid, r)
	case r.temporary:
		return fmt.Errorf("%w: %s is temporary", ErrInvalid, r)
	case r.schema == schema || r.schema == "information_schema" || strings.HasPrefix(r.schema, "pg_"):
		return fmt.Errorf("%w: %s belongs to the fence or to PostgreSQL itself", ErrInvalid, r)
	default:
		return nil
	}
}

func oids(tables []relation) []uint32 {
	ids := make([]uint32, 0, len(tables))
	for _, r := range tables {
		ids = append(ids, r.oid)
	}
	return ids
}

// withDescendants adds partitions and children at every depth: a statement fires the triggers of the table that it names,
// and of no other.
func withDescendants(ctx context.Context, tx pgx.Tx, tables []relation) ([]relation, error) {
	return relations(ctx, tx, `WHERE c.oid IN (
		WITH RECURSIVE down(oid) AS (
			SELECT unnest($1::oid[]) UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN down d ON i.inhparent = d.oid)
		SELECT oid FROM down)`, oids(tables))
}

// ancestors are the tables through which these can be written to as well, without those themselves.
func ancestors(ctx context.Context, tx pgx.Tx, tables []relation) ([]relation, error) {
	return relations(ctx, tx, `WHERE c.oid IN (
		WITH RECURSIVE up(oid) AS (
			SELECT unnest($1::oid[]) UNION SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN up u ON i.inhrelid = u.oid)
		SELECT oid FROM up) AND c.oid <> ALL ($1)`, oids(tables))
}

// triggers are the triggers of our name in the database, by table.
func triggers(ctx context.Context, tx pgx.Tx) (map[uint32]trigger, error) {
	rows, err := tx.Query(ctx, `SELECT t.tgrelid, t.tgenabled::text, t.tgtype::int, t.tgfoid, t.tgargs, t.tgqual IS NOT NULL, t.tgattr <> ''
		FROM pg_catalog.pg_trigger t WHERE t.tgname = $1 AND NOT t.tgisinternal`, TriggerName)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := make(map[uint32]trigger)
	for rows.Next() {
		var table uint32
		var args []byte
		var t trigger
		if err := rows.Scan(&table, &t.enabled, &t.kind, &t.function, &args, &t.conditional, &t.someColumns); err != nil {
			return nil, err
		}
		// Each argument ends with a zero byte.
		t.args = strings.Split(strings.TrimSuffix(string(args), "\x00"), "\x00")
		found[table] = t
	}
	return found, rows.Err()
}

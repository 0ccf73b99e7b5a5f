package pgfence

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Check says what to look at. The tables that are protected are always looked at, with their partitions. Other tables of the
// schemas that hold them are listed as weak if they have no fence: they may need none.
type Check struct {
	// Schema is where the fence is; empty: [DefaultSchema].
	Schema string
	// Tables should be protected.
	Tables []string
	// InSchemas are schemas of which every table should be protected.
	InSchemas []string
	// NoZombie leaves out trying to write under an old token. The trial locks each table as a write would, changes
	// nothing and is rolled back.
	NoZombie bool
}

// Severity says what a finding means.
type Severity string

// The severities.
const (
	// Unprotected: writes can get past the fence.
	Unprotected Severity = "unprotected"
	// Weak: they cannot, but somebody could easily make it so, or something does not work.
	Weak Severity = "weak"
)

// Finding is something that is not as it should be.
type Finding struct {
	Severity Severity `json:"severity"`
	Object   string   `json:"object"`
	Problem  string   `json:"problem"`
	Fix      string   `json:"fix"`
}

// TableState is a table that was looked at.
type TableState struct {
	Table string `json:"table"`
	// Resource is empty for a table that has no trigger.
	Resource  string `json:"resource,omitempty"`
	Protected bool   `json:"protected"`
	// Zombie is what came of writing under an old token: "refused", "admitted", or why it could not be tried.
	Zombie string `json:"zombie,omitempty"`
}

// Report is what a verification found.
type Report struct {
	Schema   string       `json:"schema"`
	Version  int          `json:"version"`
	Tables   []TableState `json:"tables"`
	Findings []Finding    `json:"findings"`
}

// Protected reports whether no write can get past the fence, as far as was looked.
func (r Report) Protected() bool {
	return !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Severity == Unprotected })
}

// Verify looks whether a fence is as it was installed, whether tables are protected, and tries to write to those that are
// under an old token. It changes nothing.
func Verify(ctx context.Context, conn Conn, what Check) (Report, error) {
	what.Schema = cmp.Or(what.Schema, DefaultSchema)
	if err := checkSchema(what.Schema); err != nil {
		return Report{}, err
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return Report{}, err
	}
	v := &verifying{tx: tx, Check: what, report: Report{Schema: what.Schema, Tables: []TableState{}, Findings: []Finding{}}}
	err = v.run(ctx)
	if e := tx.Rollback(context.WithoutCancel(ctx)); err == nil {
		err = e
	}
	return v.report, err
}

// verifying is a verification under way.
type verifying struct {
	tx pgx.Tx
	Check
	report     Report
	checkWrite uint32
	triggers   map[uint32]trigger
}

func (v *verifying) find(s Severity, object, problem, fix string) {
	v.report.Findings = append(v.report.Findings, Finding{s, object, problem, fix})
}

const verifyLimits = "SET LOCAL lock_timeout = '3s'; SET LOCAL search_path = pg_catalog, public"

func (v *verifying) run(ctx context.Context) error {
	_, err := v.tx.Exec(ctx, verifyLimits)
	if err != nil {
		return err
	}
	if v.checkWrite, err = functionOID(ctx, v.tx, v.Schema, "check_write"); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{v.checkVersion, v.checkFunctions, v.checkRights, v.checkFences, v.checkTables} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (v *verifying) checkVersion(ctx context.Context) error {
	err := v.tx.QueryRow(ctx, render("SELECT coalesce(max(version), 0) FROM {schema}.installation", v.Schema)).Scan(&v.report.Version)
	if err != nil {
		return fmt.Errorf("pgfence: reading the fence's tables takes their owner or a superuser: %w", installed(err, v.Schema))
	}
	if v.report.Version < len(steps) {
		v.find(Weak, "schema "+v.Schema, fmt.Sprintf("has version %d of %d", v.report.Version, len(steps)), "run writ-guard sql install")
	}
	if v.report.Version > len(steps) {
		return fmt.Errorf("%w: schema %s has version %d, this program knows %d: use a newer program", ErrNotInstalled, v.Schema, v.report.Version, len(steps))
	}
	return nil
}

// checkFunctions holds every function to what an installation would make it.
func (v *verifying) checkFunctions(ctx context.Context) error {
	rows, err := v.tx.Query(ctx, `SELECT p.proname, p.prosrc, coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), p.proname = 'check_write'), p.proowner = n.nspowner
		FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = $1`, v.Schema)
	if err != nil {
		return err
	}
	defer rows.Close()
	want := bodies(v.Schema)
	for rows.Next() {
		var name, body string
		var fixedPath, owned bool
		if err := rows.Scan(&name, &body, &fixedPath, &owned); err != nil {
			return err
		}
		object := "function " + v.Schema + "." + name
		expected, ours := want[name]
		delete(want, name)
		switch {
		case !ours:
			v.find(Weak, object, "does not belong to the fence", "drop it")
		case body != expected || !fixedPath:
			v.find(Unprotected, object, "has been altered, or is of another version", "run writ-guard sql install")
		case !owned:
			v.find(Unprotected, object, "has another owner than the schema", "give it to the owner of the schema with ALTER FUNCTION")
		}
	}
	for name := range want {
		v.find(Unprotected, "function "+v.Schema+"."+name, "is missing", "run writ-guard sql install")
	}
	slices.SortFunc(v.report.Findings, func(a, b Finding) int { return cmp.Compare(a.Object, b.Object) })
	return rows.Err()
}

// checkRights looks for roles that can change the fence other than through its functions.
func (v *verifying) checkRights(ctx context.Context) error {
	const grants = `SELECT 'table ' || c.oid::regclass::text, coalesce(r.rolname, 'PUBLIC'), a.privilege_type
			FROM pg_class c CROSS JOIN aclexplode(c.relacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
			WHERE c.relnamespace = $1::regnamespace AND c.relkind = 'r' AND a.grantee <> c.relowner AND a.privilege_type <> 'SELECT'
		UNION ALL SELECT 'table ' || c.oid::regclass::text || ', column ' || t.attname, coalesce(r.rolname, 'PUBLIC'), a.privilege_type
			FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid CROSS JOIN aclexplode(t.attacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
			WHERE c.relnamespace = $1::regnamespace AND c.relkind = 'r' AND a.grantee <> c.relowner AND a.privilege_type <> 'SELECT'
		UNION ALL SELECT 'schema ' || n.nspname, coalesce(r.rolname, 'PUBLIC'), a.privilege_type
			FROM pg_namespace n CROSS JOIN aclexplode(n.nspacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee
			WHERE n.nspname = $2 AND a.grantee <> n.nspowner AND a.privilege_type = 'CREATE'
		UNION ALL SELECT 'function ' || p.oid::regprocedure::text, 'PUBLIC', 'EXECUTE'
			FROM pg_proc p CROSS JOIN aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
			WHERE p.pronamespace = $1::regnamespace AND a.grantee = 0
		ORDER BY 1, 2, 3`
	rows, err := v.tx.Query(ctx, grants, `"`+v.Schema+`"`, v.Schema)
	if err != nil {
		return err
	}
	var object, role, right string
	_, err = pgx.ForEachRow(rows, []any{&object, &role, &right}, func() error {
		v.find(Unprotected, object, "role "+role+" has the right "+right, "REVOKE it: only the fence's functions change the fence")
		return nil
	})
	if err != nil {
		return err
	}
	rows, err = v.tx.Query(ctx, `SELECT 'table ' || c.oid::regclass::text, c.relpersistence <> 'p', c.relowner <> n.nspowner,
			c.relhasrules OR c.relrowsecurity OR EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relkind = 'r' ORDER BY 1`, v.Schema)
	if err != nil {
		return err
	}
	var volatile, foreign, tricked bool
	_, err = pgx.ForEachRow(rows, []any{&object, &volatile, &foreign, &tricked}, func() error {
		if volatile {
			v.find(Unprotected, object, "is not logged: a crash would empty it", "ALTER TABLE … SET LOGGED")
		}
		if foreign {
			v.find(Unprotected, object, "has another owner than the schema", "give it to the owner of the schema")
		}
		if tricked {
			v.find(Unprotected, object, "has rules, triggers or row security, which the fence did not install", "drop them")
		}
		return nil
	})
	return err
}

func (v *verifying) checkFences(ctx context.Context) error {
	rows, err := v.tx.Query(ctx, render(`SELECT 'resource ' || quote_literal(f.resource), f.floor = 1, f.drained < f.floor, t.drained IS DISTINCT FROM f.drained
		FROM {schema}.fence f LEFT JOIN {schema}.turn t USING (resource) ORDER BY 1`, v.Schema))
	if err != nil {
		return installed(err, v.Schema)
	}
	var object string
	var fresh, draining, torn bool
	_, err = pgx.ForEachRow(rows, []any{&object, &fresh, &draining, &torn}, func() error {
		if fresh {
			v.find(Weak, object, "has never been raised, so that any token is newer", "bump it to the token of the present holder")
		}
		if draining {
			v.find(Weak, object, "has been raised, but older transactions may still run; nobody can write", "bump it again")
		}
		if torn {
			v.find(Unprotected, object, "its rows in the tables fence and turn contradict each other", "bump it to a newer token, and keep hands off the tables")
		}
		return nil
	})
	return err
}

func (v *verifying) checkTables(ctx context.Context) error {
	var err error
	if v.triggers, err = triggers(ctx, v.tx); err != nil {
		return err
	}
	expected, err := v.expected(ctx)
	if err != nil {
		return err
	}
	for _, r := range expected {
		state, err := v.checkTable(ctx, r)
		if err != nil {
			return err
		}
		v.report.Tables = append(v.report.Tables, state)
	}
	return v.checkNeighbours(ctx, expected)
}

// checkNeighbours looks for tables that somebody may have forgotten to protect: they are in a schema with those that are, and
// belong to no extension.
func (v *verifying) checkNeighbours(ctx context.Context, expected []relation) error {
	var schemas []string
	var known []uint32
	for _, r := range expected {
		known = append(known, r.oid)
		if _, protected := v.triggers[r.oid]; protected && !slices.Contains(schemas, r.schema) {
			schemas = append(schemas, r.schema)
		}
	}
	neighbours, err := relations(ctx, v.tx, `WHERE n.nspname = ANY ($1) AND c.relkind IN ('r', 'p', 'f') AND n.nspname <> $2 AND c.oid <> ALL ($3)
		AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')`, schemas, v.Schema, known)
	if err != nil {
		return err
	}
	for _, r := range neighbours {
		v.find(Weak, r.String(), "has no fence, and other tables of its schema have one", howToProtect(r)+", unless it may be written without")
	}
	return nil
}

func howToProtect(r relation) string {
	if r.kind == "f" {
		return "protect it in the database that it comes from"
	}
	return "run writ-guard sql install --resource NAME --table " + strings.Join([]string{r.schema, r.name}, ".")
}

// expected are the tables that should be protected: those that are or were asked for, what is above and below them.
func (v *verifying) expected(ctx context.Context) ([]relation, error) {
	all, err := protectedTables(ctx, v.tx, v.Schema)
	if err != nil {
		return nil, err
	}
	for id := range v.triggers { // also with a trigger of our name that calls something else
		more, err := relations(ctx, v.tx, "WHERE c.oid = $1", id)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	named, err := resolve(ctx, v.tx, v.Schema, v.Tables)
	if err != nil {
		return nil, err
	}
	all = append(all, named...)
	for _, schema := range v.InSchemas {
		in, err := relations(ctx, v.tx, "WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'f') AND n.nspname <> $2", schema, v.Schema)
		if err != nil {
			return nil, err
		}
		if len(in) == 0 {
			v.find(Weak, "schema "+schema, "has no tables", "check its name")
		}
		all = append(all, in...)
	}
	above, err := ancestors(ctx, v.tx, all)
	if err != nil {
		return nil, err
	}
	return withDescendants(ctx, v.tx, append(all, above...))
}

func (v *verifying) checkTable(ctx context.Context, r relation) (TableState, error) {
	state := TableState{Table: r.String()}
	t, there := v.triggers[r.oid]
	if !there {
		v.find(Unprotected, state.Table, "has no fence", howToProtect(r))
		return state, nil
	}
	state.Resource = t.resource()
	if wrong := t.wrong(v.Schema, v.checkWrite); wrong != "" {
		v.find(Unprotected, state.Table, wrong, "run writ-guard sql install again for it")
	} else {
		state.Protected = true
	}
	if r.ownerLogsIn {
		v.find(Weak, state.Table, "its owner "+r.owner+" can log in, and owners can disable triggers", "give it to a role that nobody logs in as")
	}
	var subscribed bool
	if err := v.tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_subscription_rel WHERE srrelid = $1)", r.oid).Scan(&subscribed); err != nil {
		return state, err
	}
	if subscribed {
		v.find(Unprotected, state.Table, "is filled by logical replication, which fires no statement triggers", "fence the publisher")
	}
	if v.NoZombie {
		return state, nil
	}
	var err error
	state.Zombie, err = v.tryZombie(ctx, r, state.Resource)
	if state.Zombie == zombieAdmitted {
		state.Protected = false
		v.find(Unprotected, state.Table, "a write under an old token, or without one, was admitted", "run writ-guard sql install again for it, and look for rules on it")
	}
	return state, err
}

package pgfence

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writ-io/writ/fence"
)

// minServerVersion is the oldest server on which this is tested.
const minServerVersion = 150000

// DefaultLockTimeout is how long an installation waits for a table in use.
const DefaultLockTimeout = 5 * time.Second

// Installation says what is to be protected.
type Installation struct {
	// Schema is where the fence goes; empty: [DefaultSchema].
	Schema string
	// Resource is what the tables belong to. Without one, only the schema is installed or upgraded.
	Resource string
	// Tables are names as in SQL, best with their schema. Partitions and children are protected with them.
	Tables []string
	// Token is the floor of a resource that has no fence yet; 0: below every token that can be granted.
	Token fence.Token
	// LockTimeout is how long to wait for tables in use; 0: [DefaultLockTimeout].
	LockTimeout time.Duration
}

// Validate names the first field that cannot be used and how to put it right.
func (i Installation) Validate() error {
	if err := checkSchema(cmp.Or(i.Schema, DefaultSchema)); err != nil {
		return err
	}
	if i.Resource == "" && len(i.Tables) > 0 {
		return fmt.Errorf("%w: tables are named but no resource: name the resource that they belong to", ErrInvalid)
	}
	if i.Token < 0 {
		return checkToken(i.Token)
	}
	if i.LockTimeout < 0 {
		return fmt.Errorf("%w: LockTimeout %v is negative: use 0 for the default", ErrInvalid, i.LockTimeout)
	}
	if i.Resource == "" {
		return nil
	}
	return checkResource(i.Resource)
}

// Installed is what an installation did.
type Installed struct {
	Schema string `json:"schema"`
	// Version is that of the installation, and Before what was found; 0: nothing.
	Version int `json:"version"`
	Before  int `json:"before"`
	// Tables are now protected, and Added are those of them that were not, or not rightly, before.
	Tables []string `json:"tables"`
	Added  []string `json:"added"`
}

// Install installs a fence, upgrades it, and protects tables, all in one transaction; doing so again changes nothing. It
// has to be run by the owner of the tables or a superuser. Best it is a superuser, because the functions run as who
// installed them, and it takes rights to terminate backends.
func Install(ctx context.Context, conn Conn, what Installation) (done Installed, err error) {
	if err := what.Validate(); err != nil {
		return Installed{}, err
	}
	what.Schema = cmp.Or(what.Schema, DefaultSchema)
	what.LockTimeout = cmp.Or(what.LockTimeout, DefaultLockTimeout)
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		done, err = installing{tx, what}.run(ctx)
		return err
	})
	if hasState(err, stateLockTimedOut) {
		err = fmt.Errorf("pgfence: a table is in use: try again, or with a longer lock timeout: %w", err)
	}
	return done, err
}

// installing is an installation under way.
type installing struct {
	tx pgx.Tx
	Installation
}

func (i installing) run(ctx context.Context) (done Installed, err error) {
	done = Installed{Schema: i.Schema, Tables: []string{}, Added: []string{}}
	if err := i.begin(ctx); err != nil {
		return done, err
	}
	if done.Before, err = i.upgrade(ctx); err != nil {
		return done, err
	}
	done.Version = len(steps)
	if i.Resource == "" {
		return done, nil
	}
	if err := i.addFence(ctx); err != nil {
		return done, err
	}
	return done, i.protect(ctx, &done)
}

func (i installing) begin(ctx context.Context) error {
	// Only one installation at a time: the key is that of a resource without a name.
	_, err := i.tx.Exec(ctx, fmt.Sprintf("SET LOCAL lock_timeout = %d; SET LOCAL standard_conforming_strings = on; "+
		"SET LOCAL client_min_messages = warning; SET LOCAL search_path = pg_catalog, public; SELECT pg_advisory_xact_lock(%d)",
		max(i.LockTimeout.Milliseconds(), 1), lockKey(i.Schema, "")))
	if err != nil {
		return err
	}
	var version int
	if err := i.tx.QueryRow(ctx, "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		return err
	}
	if version < minServerVersion {
		return fmt.Errorf("%w: PostgreSQL %d is too old: use 15 or newer", ErrInvalid, version/10000)
	}
	return nil
}

// upgrade runs the steps that have not been run, and replaces the functions.
func (i installing) upgrade(ctx context.Context) (before int, err error) {
	before, err = i.enter(ctx)
	if err != nil {
		return before, err
	}
	if before > len(steps) {
		return before, fmt.Errorf("%w: schema %s has version %d, this program knows %d: use a newer program", ErrNotInstalled, i.Schema, before, len(steps))
	}
	sql := ""
	for n := before; n < len(steps); n++ {
		sql += steps[n] + fmt.Sprintf("\nINSERT INTO {schema}.installation (version) VALUES (%d);\n", n+1)
	}
	sql += functionsSQL
	if before == 0 {
		sql += lockDown
	}
	if _, err := i.tx.Exec(ctx, render(sql+"\nRESET ROLE;", i.Schema)); err != nil {
		return before, fmt.Errorf("pgfence: installing schema %s: %w", i.Schema, err)
	}
	return before, nil
}

// enter returns the version that is installed, and goes on as the owner of the schema, so that everything in it has the
// same one.
func (i installing) enter(ctx context.Context) (version int, err error) {
	var owner string
	var own, there bool
	err = i.tx.QueryRow(ctx, `SELECT r.rolname, r.rolname = current_user, to_regclass(quote_ident(n.nspname) || '.installation') IS NOT NULL
		FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner WHERE n.nspname = $1`, i.Schema).Scan(&owner, &own, &there)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if !there && !own {
		return 0, fmt.Errorf("%w: there is a schema %s of role %s without a fence: choose another schema", ErrInvalid, i.Schema, owner)
	}
	if !own {
		if _, err := i.tx.Exec(ctx, "SET LOCAL ROLE "+pgx.Identifier{owner}.Sanitize()); err != nil {
			return 0, fmt.Errorf("pgfence: schema %s belongs to role %s: %w", i.Schema, owner, err)
		}
	}
	if there {
		err = i.tx.QueryRow(ctx, render("SELECT coalesce(max(version), 0) FROM {schema}.installation", i.Schema)).Scan(&version)
	}
	return version, err
}

// lockDown takes back what default privileges of the database may have granted on new objects.
const lockDown = `
DO $writ$
DECLARE
    granted record;
BEGIN
    FOR granted IN
        SELECT 'TABLE' AS kind, c.oid::regclass::text AS object, a.grantee FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.relnamespace = '{schema}'::regnamespace AND c.relkind = 'r' AND a.grantee <> c.relowner
        UNION SELECT 'FUNCTION', p.oid::regprocedure::text, a.grantee FROM pg_proc p, aclexplode(p.proacl) a
        WHERE p.pronamespace = '{schema}'::regnamespace AND a.grantee <> p.proowner
        UNION SELECT 'SCHEMA', n.oid::regnamespace::text, a.grantee FROM pg_namespace n, aclexplode(n.nspacl) a
        WHERE n.nspname = '{schema_name}' AND a.grantee <> n.nspowner
    LOOP
        EXECUTE format('REVOKE ALL ON %s %s FROM %s', granted.kind, granted.object,
            CASE granted.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(granted.grantee)) END);
    END LOOP;
END
$writ$;
`

// addFence gives the resource a fence, and leaves one that it has as it is.
func (i installing) addFence(ctx context.Context) error {
	floor := int64(max(i.Token, 1))
	_, err := i.tx.Exec(ctx, render("INSERT INTO {schema}.fence (resource, floor, drained) VALUES ($1, $2, $2) ON CONFLICT DO NOTHING", i.Schema),
		i.Resource, floor)
	if err == nil {
		_, err = i.tx.Exec(ctx, render(`INSERT INTO {schema}.turn (resource, drained)
			SELECT f.resource, f.drained FROM {schema}.fence f WHERE f.resource = $1 ON CONFLICT DO NOTHING`, i.Schema), i.Resource)
	}
	if err != nil {
		return fmt.Errorf("pgfence: adding the fence of %q: %w", i.Resource, err)
	}
	return nil
}

func (i installing) protect(ctx context.Context, done *Installed) error {
	named, err := resolve(ctx, i.tx, i.Schema, i.Tables)
	if err != nil {
		return err
	}
	family, err := withDescendants(ctx, i.tx, named)
	if err != nil {
		return err
	}
	above, err := ancestors(ctx, i.tx, family)
	if err != nil {
		return err
	}
	existing, err := triggers(ctx, i.tx)
	if err != nil {
		return err
	}
	for _, r := range above {
		if _, guarded := existing[r.oid]; !guarded {
			return fmt.Errorf("%w: a table that is named can be written to through %s: name that as well", ErrInvalid, r)
		}
	}
	checkWrite, err := functionOID(ctx, i.tx, i.Schema, "check_write")
	if err != nil {
		return err
	}
	for _, r := range family {
		if err := protectable(r, i.Schema); err != nil {
			return err
		}
		done.Tables = append(done.Tables, r.String())
		have, there := existing[r.oid]
		if there && have.resource() != i.Resource {
			return fmt.Errorf("%w: %s is protected for resource %q: uninstall that first", ErrConflict, r, have.resource())
		}
		if there && have.wrong(i.Schema, checkWrite) == "" {
			continue
		}
		if err := i.addTrigger(ctx, r); err != nil {
			return err
		}
		done.Added = append(done.Added, r.String())
	}
	return nil
}

func (i installing) addTrigger(ctx context.Context, r relation) error {
	var create string
	// The server quotes, for the statement takes no parameters.
	err := i.tx.QueryRow(ctx, `SELECT format('CREATE OR REPLACE TRIGGER %I BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %I.%I
			FOR EACH STATEMENT EXECUTE FUNCTION %I.check_write(%L, %L, %L);
			ALTER TABLE %2$I.%3$I ENABLE ALWAYS TRIGGER %1$I',
		$1::text, $2::text, $3::text, $4::text, $5::text, $6::text, $7::text)`,
		TriggerName, r.schema, r.name, i.Schema, i.Resource, settingName(i.Schema, i.Resource), fmt.Sprint(lockKey(i.Schema, i.Resource))).Scan(&create)
	if err == nil {
		_, err = i.tx.Exec(ctx, create)
	}
	if err != nil {
		return fmt.Errorf("pgfence: protecting %s: %w", r, err)
	}
	return nil
}

func functionOID(ctx context.Context, tx pgx.Tx, schema, name string) (oid uint32, err error) {
	err = tx.QueryRow(ctx, "SELECT p.oid FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = $1 AND p.proname = $2",
		schema, name).Scan(&oid)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, fmt.Errorf("%w in schema %q: function %s is missing: run writ-guard sql install", ErrNotInstalled, schema, name)
	}
	return oid, err
}

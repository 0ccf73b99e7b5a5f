package sqlcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/pgfence"
)

func (a *app) install() *cobra.Command {
	var what pgfence.Installation
	var token string
	cmd := &cobra.Command{
		Use:   "install [--resource NAME --table TABLE…]",
		Short: "Install or upgrade the fence, and protect tables",
		Long: `Install or upgrade the fence, and protect tables, in one transaction; doing so again changes nothing.

Partitions and children are protected with the table that is named; run it again after adding some. Run it as a superuser,
because the fence's functions act as who installed them, and take the right to terminate backends.`,
		Example: "  writ-guard sql install --dsn postgres://admin@db/shop --resource orders-db --table public.orders --table public.lines",
	}
	cmd.Flags().StringVar(&what.Resource, "resource", "", "the `name` of what the tables belong to")
	cmd.Flags().StringArrayVar(&what.Tables, "table", nil, "a `table` to protect, as in SQL; may be repeated")
	cmd.Flags().StringVar(&token, "token", "", "the floor of a new fence, a `token` (default: below every token)")
	cmd.Flags().DurationVar(&what.LockTimeout, "lock-timeout", pgfence.DefaultLockTimeout, "how `long` to wait for tables in use")
	cmd.RunE = a.on(func(ctx context.Context, pool *pgxpool.Pool, out io.Writer) (err error) {
		what.Schema = a.schema
		if token != "" {
			if what.Token, err = fence.ParseToken(token); err != nil {
				return fmt.Errorf("--token: %w", err)
			}
		}
		done, err := pgfence.Install(ctx, pool, what)
		if err != nil {
			return err
		}
		return a.print(out, done, func(w io.Writer) {
			row(w, "TABLE", "STATE")
			for _, table := range done.Tables {
				state := "protected before"
				for _, added := range done.Added {
					if added == table {
						state = "protected now"
					}
				}
				row(w, table, state)
			}
		})
	})
	return cmd
}

func (a *app) uninstall() *cobra.Command {
	var what pgfence.Removal
	cmd := &cobra.Command{
		Use:   "uninstall (--table TABLE… | --all-tables) [--drop-schema]",
		Short: "Take protection away from tables",
		Long: `Take protection away from tables. The floors stay, so that installing again does not admit tokens of the past, unless
--drop-schema removes them as well.`,
	}
	cmd.Flags().StringArrayVar(&what.Tables, "table", nil, "a `table` to take the protection from; may be repeated")
	cmd.Flags().BoolVar(&what.AllTables, "all-tables", false, "take it from every table")
	cmd.Flags().BoolVar(&what.DropSchema, "drop-schema", false, "drop the schema with its floors, if no table is protected any more")
	cmd.Flags().DurationVar(&what.LockTimeout, "lock-timeout", pgfence.DefaultLockTimeout, "how `long` to wait for tables in use")
	cmd.MarkFlagsMutuallyExclusive("table", "all-tables")
	cmd.MarkFlagsOneRequired("table", "all-tables", "drop-schema")
	cmd.RunE = a.on(func(ctx context.Context, pool *pgxpool.Pool, out io.Writer) error {
		what.Schema = a.schema
		removed, err := pgfence.Uninstall(ctx, pool, what)
		if err != nil {
			return err
		}
		if removed == nil {
			removed = []string{}
		}
		return a.print(out, map[string][]string{"removed": removed}, func(w io.Writer) {
			row(w, "TABLE", "STATE")
			for _, table := range removed {
				row(w, table, "not protected any more")
			}
		})
	})
	return cmd
}

func (a *app) verify() *cobra.Command {
	var what pgfence.Check
	cmd := &cobra.Command{
		Use:   "verify [--table TABLE…] [--in-schema SCHEMA…]",
		Short: "Look for writes that the fence does not stop",
		Long: `Look for writes that the fence does not stop, and try some under an old token in a transaction that is rolled back.

Tables that are protected are always looked at, with their partitions, children and parents. Other tables of their schemas
that have no fence are listed as weak, for they may need none. The exit code is 2 if something is unprotected.`,
	}
	cmd.Flags().StringArrayVar(&what.Tables, "table", nil, "a `table` that should be protected; may be repeated")
	cmd.Flags().StringArrayVar(&what.InSchemas, "in-schema", nil, "a `schema` of which all tables should be protected; may be repeated")
	cmd.Flags().BoolVar(&what.NoZombie, "no-zombie", false, "do not try to write under an old token")
	cmd.RunE = a.on(func(ctx context.Context, pool *pgxpool.Pool, out io.Writer) error {
		what.Schema = a.schema
		report, err := pgfence.Verify(ctx, pool, what)
		if err != nil {
			return err
		}
		data := struct {
			pgfence.Report
			Protected bool `json:"protected"`
		}{report, report.Protected()}
		if err := a.print(out, data, func(w io.Writer) { verification(w, report) }); err != nil {
			return err
		}
		if !report.Protected() {
			return errUnprotected
		}
		return nil
	})
	return cmd
}

func verification(w io.Writer, report pgfence.Report) {
	row(w, "TABLE", "RESOURCE", "PROTECTED", "ZOMBIE")
	for _, t := range report.Tables {
		row(w, t.Table, t.Resource, map[bool]string{true: "yes", false: "NO"}[t.Protected], t.Zombie)
	}
	if len(report.Findings) == 0 {
		return
	}
	row(w)
	row(w, "FINDING", "WHERE", "WHAT", "FIX")
	for _, f := range report.Findings {
		row(w, string(f.Severity), f.Object, f.Problem, f.Fix)
	}
}

func (a *app) status() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "List fences with their floors and the transactions in flight",
		RunE: a.on(func(ctx context.Context, pool *pgxpool.Pool, out io.Writer) error {
			states, err := pgfence.Status(ctx, pool, a.schema)
			if err != nil {
				return err
			}
			if states == nil {
				states = []pgfence.State{}
			}
			return a.print(out, map[string][]pgfence.State{"fences": states}, func(w io.Writer) {
				row(w, "RESOURCE", "FLOOR", "DRAINED", "RAISED", "BY", "TABLES", "IN FLIGHT")
				for _, s := range states {
					drained := "yes"
					if s.Drained < s.Floor {
						drained = "NO, up to " + tokenText(s.Drained)
					}
					row(w, s.Resource, tokenText(s.Floor), drained, s.RaisedAt.UTC().Format(time.RFC3339), s.RaisedBy,
						strconv.Itoa(len(s.Tables)), strconv.Itoa(len(s.Holders)))
				}
			})
		}),
	}
}

// tokenText shows the floor before the first bump as what it is.
func tokenText(t fence.Token) string {
	if !t.Valid() {
		return "none (" + t.Decimal() + ")"
	}
	return t.String()
}

func (a *app) bump() *cobra.Command {
	var resource, token string
	var cfg pgfence.Config
	cmd := &cobra.Command{
		Use:   "bump --resource NAME --token TOKEN",
		Short: "Raise a fence to a token and wait until no older transaction runs",
		Long: `Raise a fence to a token and wait until no older transaction runs. Those that do not end in time are terminated. The
proof is "acked" if all ended by themselves, and "cut" otherwise; either way none of them can write any more.`,
	}
	cmd.Flags().StringVar(&resource, "resource", "", "the `name` of the fence")
	cmd.Flags().StringVar(&token, "token", "", "the `token`, as a decimal integer or epoch.sequence")
	cmd.Flags().DurationVar(&cfg.Bump.DrainTimeout, "drain-timeout", pgfence.DefaultDrainTimeout, "how `long` older transactions may go on")
	cmd.Flags().DurationVar(&cfg.Bump.CutTimeout, "cut-timeout", pgfence.DefaultCutTimeout, "how `long` a terminated backend may take")
	cmd.Flags().BoolVar(&cfg.Bump.NoCut, "no-cut", false, "do not terminate older transactions; give up instead")
	for _, name := range []string{"resource", "token"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // a misspelling just above
		}
	}
	cmd.RunE = a.on(func(ctx context.Context, pool *pgxpool.Pool, out io.Writer) error {
		cfg.Schema = a.schema
		t, err := fence.ParseToken(token)
		if err != nil {
			return fmt.Errorf("--token: %w", err)
		}
		done, err := pgfence.Bump(ctx, pool, cfg, resource, t)
		if err != nil {
			return err
		}
		data := map[string]any{"resource": resource, "token": t, "tokenText": t.String(), "proof": done.Proof, "ended": append([]pgfence.Holder{}, done.Ended...)}
		return a.print(out, data, func(w io.Writer) {
			row(w, "RESOURCE", "FLOOR", "PROOF", "TERMINATED")
			row(w, resource, t.String(), string(done.Proof), strconv.Itoa(len(done.Ended)))
		})
	})
	return cmd
}

// rights is "grant" or "revoke".
func (a *app) rights(verb string) *cobra.Command {
	var role string
	var names []string
	set, short := pgfence.Grant, "Trust a role to present tokens, and to raise fences"
	if verb == "revoke" {
		set, short = pgfence.Revoke, "Take rights from a role"
	}
	cmd := &cobra.Command{
		Use:   verb + " --role ROLE [--allow RIGHT,…]",
		Short: short,
		Long: short + `.

present: the tokens that it presents are believed, without proof, so grant it only to roles whose programs present what they
were granted. raise: it may raise fences, which locks out older tokens. cut: while a fence is raised, it may terminate the
backends of older transactions.`,
	}
	cmd.Flags().StringVar(&role, "role", "", "the `role` that logs in")
	cmd.Flags().StringSliceVar(&names, "allow", []string{string(pgfence.Present), string(pgfence.Raise)}, "`rights` of present, raise, cut")
	if err := cmd.MarkFlagRequired("role"); err != nil {
		panic(err) // a misspelling just above
	}
	cmd.RunE = a.on(func(ctx context.Context, pool *pgxpool.Pool, out io.Writer) error {
		rights := make([]pgfence.Right, 0, len(names))
		for _, name := range names {
			rights = append(rights, pgfence.Right(name))
		}
		if len(rights) == 0 {
			return errors.New("--allow is empty: name rights of present, raise, cut")
		}
		if err := set(ctx, pool, a.schema, role, rights...); err != nil {
			return err
		}
		return a.print(out, map[string]any{"role": role, verb: rights}, func(w io.Writer) {
			row(w, "ROLE", strings.ToUpper(verb))
			row(w, role, strings.Join(names, ", "))
		})
	})
	return cmd
}

package sqlcmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/pgfence"
)

// Exit codes.
const (
	exitOK          = 0
	exitError       = 1
	exitRefused     = 2
	exitDenied      = 4
	exitUnavailable = 5
	exitPending     = 6
)

// errUnprotected means that "verify" found a way past the fence.
var errUnprotected = errors.New("there are writes that the fence does not stop")

// DSNVariable is the environment variable that says which database, if --dsn does not.
const DSNVariable = "WRIT_GUARD_SQL_DSN"

// coded is an error with the exit code that it ends the program with.
type coded struct{ error }

// ExitCode is the program's exit code.
func (c coded) ExitCode() int { return ExitCode(c.error) }

func (c coded) Unwrap() error { return c.error }

// ExitCode tells which exit code an error of these commands means.
func ExitCode(err error) int {
	var refused *pgconn.ConnectError
	var server *pgconn.PgError
	if errors.As(err, &server) && (server.Code == "42501" || strings.HasPrefix(server.Code, "28")) {
		return exitDenied
	}
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, fence.ErrStale), errors.Is(err, errUnprotected):
		return exitRefused
	case errors.Is(err, pgfence.ErrNotTrusted):
		return exitDenied
	case errors.Is(err, pgfence.ErrBusy):
		return exitPending
	case pgfence.Unreachable(err), errors.As(err, &refused):
		return exitUnavailable
	default:
		return exitError
	}
}

// app is what the commands share.
type app struct {
	dsn    string
	schema string
	output string
}

// Command is "sql" with everything beneath it.
func Command() *cobra.Command {
	a := &app{}
	cmd := &cobra.Command{
		Use:   "sql",
		Short: "Fence tables inside of PostgreSQL",
		Long: `Fence tables inside of PostgreSQL: a trigger refuses each write whose transaction has not presented the newest token.

The database is named by --dsn, by ` + DSNVariable + `, or by the variables of libpq, such as PGHOST and PGPASSFILE.

Exit codes: 0 ok, 1 error, 2 refused, stale or unprotected, 4 not authorised, 5 unavailable, 6 pending.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	flags := cmd.PersistentFlags()
	flags.StringVar(&a.dsn, "dsn", "", "the database, as a `URL` or key=value words (default: $"+DSNVariable+")")
	flags.StringVar(&a.schema, "schema", pgfence.DefaultSchema, "the `schema` that holds the fence")
	flags.StringVarP(&a.output, "output", "o", "table", "table or json")
	cmd.AddCommand(a.install(), a.verify(), a.uninstall(), a.status(), a.bump(), a.rights("grant"), a.rights("revoke"))
	for _, sub := range cmd.Commands() {
		sub.Args = cobra.NoArgs
		sub.SilenceUsage, sub.SilenceErrors = true, true
	}
	return cmd
}

// on makes a command's work out of work on a database.
func (a *app) on(do func(ctx context.Context, pool *pgxpool.Pool, out io.Writer) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		err := a.connected(cmd.Context(), func(pool *pgxpool.Pool) error { return do(cmd.Context(), pool, cmd.OutOrStdout()) })
		if err != nil {
			return coded{err}
		}
		return nil
	}
}

func (a *app) connected(ctx context.Context, do func(*pgxpool.Pool) error) error {
	if a.output != "table" && a.output != "json" {
		return fmt.Errorf("--output is %q: use table or json", a.output)
	}
	dsn := a.dsn
	if dsn == "" {
		dsn = os.Getenv(DSNVariable)
	}
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return fmt.Errorf("--dsn: %w", err) // pgx leaves the password out
	}
	config.MaxConns = 2
	if config.ConnConfig.RuntimeParams["application_name"] == "" {
		config.ConnConfig.RuntimeParams["application_name"] = "writ-guard sql"
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()
	return do(pool)
}

// print writes data as JSON, or what table writes.
func (a *app) print(out io.Writer, data any, table func(io.Writer)) error {
	if a.output == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		return encoder.Encode(data)
	}
	aligned := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	table(aligned)
	return aligned.Flush()
}

// row writes one line of a table.
func row(w io.Writer, cells ...string) {
	for i, c := range cells {
		if c == "" {
			c = "-"
		}
		// A name out of the database must not break the table.
		cells[i] = strings.Map(func(r rune) rune {
			if r == '\t' || r == '\n' || r == '\r' || r == '\x1b' {
				return ' '
			}
			return r
		}, c)
	}
	_, _ = fmt.Fprintln(w, strings.Join(cells, "\t"))
}

//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/writ-io/writ/fence/pgfence/pgprograms"
	"github.com/writ-io/writ/jepsen/appends/book"
	"github.com/writ-io/writ/jepsen/appends/table"
	"github.com/writ-io/writ/jepsen/appends/writer"
	"github.com/writ-io/writ/jepsen/cluster"
	"github.com/writ-io/writ/jepsen/slots"
	"github.com/writ-io/writ/jepsen/slots/worker"
	"github.com/writ-io/writ/jepsen/wait"
)

// Database is the party of PostgreSQL, of a lab that has it.
const Database = "database"

// The parties of those who write to the database, counted from 0.
const (
	tableWriters = 2
	databasePort = "5432"
)

// TableWriter names the party of a writer that appends in the database.
func TableWriter(i int) string { return fmt.Sprintf("tablewriter%d", i+1) }

// Service names the party of the process with cron jobs in a region, counted from 0.
func Service(i int) string { return fmt.Sprintf("service%d", i+1) }

// Jobs are the cron jobs of a lab that has some.
func (c Config) Jobs() []slots.Job {
	if c.Services == nil {
		return nil
	}
	fenced := !c.Unfenced
	return []slots.Job{
		{Name: "billing/a", Table: "slots_a", Fenced: fenced}, {Name: "billing/b", Table: "slots_b", Fenced: fenced},
		{Name: "billing/c", Table: "slots_c", Fenced: fenced},
	}
}

// hasDatabase tells whether anybody writes to it.
func (c Config) hasDatabase() bool { return c.TableWriters != nil || c.Services != nil }

// databaseParties are the database and those who write to it.
func (c Config) databaseParties() (parties []string) {
	if c.hasDatabase() {
		parties = append(parties, Database)
	}
	if c.TableWriters != nil {
		for i := range tableWriters {
			parties = append(parties, TableWriter(i))
		}
	}
	if c.Services != nil {
		for i := range cluster.Regions {
			parties = append(parties, Service(i))
		}
	}
	return parties
}

// databaseSettings beside the defaults. Nobody takes the power away, so there is no need to wait for disks. Connections whose
// other end is gone hold nothing up for long.
const databaseSettings = `
fsync = off
max_connections = 120
shared_buffers = 64MB
unix_socket_directories = ''
log_min_messages = warning
idle_in_transaction_session_timeout = 5s
tcp_keepalives_idle = 2
tcp_keepalives_interval = 1
tcp_keepalives_count = 3
tcp_user_timeout = 5s
`

// startDatabase starts PostgreSQL and waits until it answers, at most until ctx ends. Its files are in a directory of their own,
// since it does not run as root.
func (l *Lab) startDatabase(ctx context.Context) error {
	bin, _, err := pgprograms.Find(ctx)
	if err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	who, err := pgprograms.User()
	if err != nil {
		return err
	}
	if l.databaseDir, err = os.MkdirTemp("", "writ-jepsen-database-"); err != nil {
		return err
	}
	if err := os.Chown(l.databaseDir, int(who.Uid), int(who.Gid)); err != nil {
		return err
	}
	data := filepath.Join(l.databaseDir, "data")
	as := pgprograms.As(who)
	initialise := append(as[1:len(as):len(as)], filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	cmd := exec.CommandContext(ctx, as[0], initialise...)
	cmd.Dir, cmd.Env = "/", append(os.Environ(), "LC_ALL=C")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("lab: initdb: %w: %s", err, out)
	}
	for file, text := range map[string]string{
		"postgresql.conf": fmt.Sprintf("%slisten_addresses = '%s'\n", databaseSettings, l.Net.Address(Database)),
		"pg_hba.conf":     "host all all samenet trust\n",
	} {
		if err := extend(filepath.Join(data, file), text); err != nil {
			return err
		}
	}
	// Whose death it hears of is forgotten when it becomes another user, so that is asked for anew.
	run := append([]string{"--pdeathsig", "QUIT"}, as[1:]...)
	run = append(run, filepath.Join(bin, "postgres"), "-D", data)
	l.database = &cluster.Program{Name: Database, End: syscall.SIGINT, Command: func() (*exec.Cmd, error) {
		cmd := l.Net.Command(Database, as[0], run...)
		cmd.Dir, cmd.Env = "/", append(os.Environ(), "LC_ALL=C")
		return cmd, nil
	}}
	if err := l.start(l.database); err != nil {
		return err
	}
	return l.prepareDatabase(ctx)
}

func extend(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// dsn reaches the database from any party.
func (l *Lab) dsn() string {
	return fmt.Sprintf("host=%s port=%s user=postgres dbname=postgres connect_timeout=2", l.Net.Address(Database), databasePort)
}

// OpenDatabase connects to the database, from where nothing is cut.
func (l *Lab) OpenDatabase(ctx context.Context) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(l.dsn())
	if err != nil {
		return nil, err
	}
	dial := l.Net.Dial(Observer)
	config.DialFunc = func(ctx context.Context, _, address string) (net.Conn, error) { return dial(ctx, address) }
	return pgx.ConnectConfig(ctx, config)
}

// prepareDatabase waits until the database answers, and makes the tables.
func (l *Lab) prepareDatabase(ctx context.Context) error {
	conn, err := l.OpenDatabase(ctx)
	for err != nil {
		if failed := l.database.Check(); failed != nil || !wait.For(ctx, 50*time.Millisecond) {
			return errors.Join(err, failed)
		}
		conn, err = l.OpenDatabase(ctx)
	}
	if l.Config.TableWriters != nil {
		err = table.Create(ctx, conn, !l.Config.Unfenced)
	}
	for _, job := range l.Config.Jobs() {
		err = errors.Join(err, job.Create(ctx, conn))
	}
	return errors.Join(err, conn.Close(ctx))
}

// closeDatabase ends the database in good order, since what it shares with its processes outlives a kill.
func (l *Lab) closeDatabase() error {
	if l.database == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := l.database.Stop(ctx)
	l.database = nil
	return err
}

// startDatabaseWriters starts everybody who writes to the database.
func (l *Lab) startDatabaseWriters() error {
	client := l.Nodes.Client()
	if b := l.Config.TableWriters; b != nil {
		for i := range tableWriters {
			config := writer.Config{
				Endpoints: client.Endpoints, CA: client.CAFile, Cert: client.CertFile, Key: client.KeyFile, TTL: WriterTTL,
				Postgres: l.dsn(), Unfenced: l.Config.Unfenced,
			}
			err := l.hire(&l.TableWriters, b, TableWriter(i), writer.Variable, func(name string, seed uint64) any {
				config.Name, config.Seed = name, seed
				return config
			})
			if err != nil {
				return err
			}
		}
	}
	if b := l.Config.Services; b != nil {
		for i, region := range cluster.Regions {
			config := worker.Config{
				Region: region, Endpoints: client.Endpoints, CA: client.CAFile, Cert: client.CertFile, Key: client.KeyFile,
				TTL: WriterTTL, DSN: l.dsn(), Jobs: l.Config.Jobs(),
			}
			err := l.hire(&l.Services, b, Service(i), worker.Variable, func(name string, seed uint64) any {
				config.Name, config.Seed = name, seed
				return config
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// hire starts a worker among others.
func (l *Lab) hire(crew *[]*Worker, b *book.Book, party, variable string, config func(name string, seed uint64) any) error {
	w, err := l.addWorker(b, party, variable, config)
	if err == nil {
		*crew = append(*crew, w)
	}
	return err
}

//go:build linux

package examples_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/writ-io/writ/fence/pgfence/pgtest"
	"github.com/writ-io/writ/jepsen/cluster"
)

// waitLimit bounds how long to wait for anything. It is reached only by what never comes.
const waitLimit = 3 * time.Minute

// stage is a database and the processes of one example, one in a region.
type stage struct {
	t         *testing.T
	name      string
	dsn       string
	db        *pgxpool.Pool
	dir       string // of the logs
	processes *cluster.Processes
	programs  map[string]*cluster.Process // by region; those that run
	args      map[string][]string         // by region; what they were started with
}

func newStage(t *testing.T, name string) *stage {
	t.Helper()
	startLab(t)
	s := &stage{
		t: t, name: name, dsn: pgtest.DSN(t), dir: t.TempDir(), processes: cluster.NewProcesses(),
		programs: make(map[string]*cluster.Process), args: make(map[string][]string),
	}
	t.Cleanup(s.processes.Close)
	s.db = pgtest.Pool(t, s.dsn)
	setup := exec.CommandContext(t.Context(), filepath.Join(lab.dir, name), "-setup")
	setup.Env = environment("", s.dsn)
	if out, err := setup.CombinedOutput(); err != nil {
		t.Fatalf("%s -setup: %v: %s", name, err, out)
	}
	return s
}

func (s *stage) log(region string) string { return filepath.Join(s.dir, region+".log") }

// start starts the program in regions.
func (s *stage) start(args []string, regions ...string) {
	s.t.Helper()
	for _, region := range regions {
		cmd := exec.Command(filepath.Join(lab.dir, s.name), args...)
		cmd.Env = environment(region, s.dsn)
		log, err := os.OpenFile(s.log(region), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			s.t.Fatal(err)
		}
		cmd.Stdout, cmd.Stderr = log, log
		s.args[region] = args
		s.programs[region], err = s.processes.Start(cmd)
		if err = errors.Join(err, log.Close()); err != nil {
			s.t.Fatal(err)
		}
	}
}

// mark writes into a program's log what is done to it, in the form of its own lines.
func (s *stage) mark(region, what string, at time.Time) {
	s.t.Helper()
	line, err := json.Marshal(line{Time: at, Msg: what})
	if err != nil {
		s.t.Fatal(err)
	}
	log, err := os.OpenFile(s.log(region), os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	_, err = log.Write(append(line, '\n'))
	if err = errors.Join(err, log.Close()); err != nil {
		s.t.Fatal(err)
	}
}

// kill ends the program by SIGKILL.
func (s *stage) kill(region string) {
	s.t.Helper()
	at := time.Now()
	if err := s.programs[region].Kill(); err != nil {
		s.t.Fatal(err)
	}
	delete(s.programs, region)
	s.mark(region, killed, at)
}

// pause stops the program by SIGSTOP; resume lets it go on by SIGCONT.
func (s *stage) pause(region string) {
	s.t.Helper()
	s.mark(region, paused, time.Now())
	s.signal(region, syscall.SIGSTOP)
}

func (s *stage) resume(region string) {
	s.t.Helper()
	s.mark(region, resumed, time.Now())
	s.signal(region, syscall.SIGCONT)
}

func (s *stage) signal(region string, signal syscall.Signal) {
	s.t.Helper()
	if err := s.programs[region].Signal(signal); err != nil {
		s.t.Fatal(err)
	}
}

// stop sends SIGTERM, upon which the program has to end well.
func (s *stage) stop(region string) {
	s.t.Helper()
	s.supervise()
	s.signal(region, syscall.SIGTERM)
	select {
	case <-s.programs[region].Done():
	case <-time.After(waitLimit):
		s.t.Fatalf("%s has not ended %v after SIGTERM\n%s", region, waitLimit, s.logs())
	}
	if err := s.programs[region].Err(); err != nil {
		s.t.Fatalf("%s ended by SIGTERM: %v\n%s", region, err, s.logs())
	}
	delete(s.programs, region)
}

// await looks again and again until what is waited for is there.
func (s *stage) await(what string, there func() bool) {
	s.t.Helper()
	limit := time.NewTimer(waitLimit)
	defer limit.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !there() {
		s.supervise()
		select {
		case <-tick.C:
		case <-limit.C:
			s.t.Fatalf("no %s within %v\n%s", what, waitLimit, s.logs())
		}
	}
}

// supervise fails the test if a program has ended by itself. One that did not reach the quorum in time, as happens on a machine
// that is too busy, is started again, as whoever supervises a service does.
func (s *stage) supervise() {
	s.t.Helper()
	for region, p := range s.programs {
		select {
		case <-p.Done():
		default:
			continue
		}
		data, err := os.ReadFile(s.log(region))
		if err != nil {
			s.t.Fatal(err)
		}
		data = bytes.TrimSpace(data)
		if last := data[bytes.LastIndexByte(data, '\n')+1:]; !bytes.Contains(last, []byte("no node answers")) {
			s.t.Fatalf("%s ended by itself: %v\n%s", region, p.Err(), s.logs())
		}
		s.t.Logf("%s did not reach the quorum in time and is started again", region)
		s.start(s.args[region], region)
	}
}

// exec changes the database.
func (s *stage) exec(sql string, args ...any) {
	s.t.Helper()
	if _, err := s.db.Exec(context.Background(), sql, args...); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
}

// number asks the database for one; 0 stands for null.
func (s *stage) number(sql string, args ...any) int64 {
	s.t.Helper()
	var n *int64
	if err := s.db.QueryRow(context.Background(), sql, args...).Scan(&n); err != nil {
		s.t.Fatalf("%s: %v", sql, err)
	}
	if n == nil {
		return 0
	}
	return *n
}

// gateKey is the advisory lock that holds writes up, which are those of the applications and tables in the table gate.
const gateKey = 7411

// gates prepares tables so that a write of one process can be held up within the database, before the fence looks at it.
// Triggers fire in the order of their names: what the fence, writ_fence, lets in after that is counted by a sequence, which
// no rollback sets back.
func (s *stage) gates(tables ...string) {
	s.t.Helper()
	s.exec(fmt.Sprintf(`CREATE TABLE gate (application text, relation text);
		CREATE SEQUENCE admitted MINVALUE 0 START 0;
		SELECT nextval('admitted');
		CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF EXISTS (SELECT FROM gate WHERE application = current_setting('application_name') AND relation = TG_TABLE_NAME) THEN
				PERFORM pg_advisory_xact_lock_shared(%d), set_config('gate.held', 'yes', true);
			END IF;
			RETURN NULL;
		END $$;
		CREATE FUNCTION admitted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF current_setting('gate.held', true) = 'yes' THEN
				PERFORM nextval('admitted');
			END IF;
			RETURN NULL;
		END $$`, gateKey))
	for _, table := range tables {
		s.exec("CREATE TRIGGER a_gate BEFORE INSERT ON " + table + " FOR EACH STATEMENT EXECUTE FUNCTION gate()")
		s.exec("CREATE TRIGGER z_admitted BEFORE INSERT ON " + table + " FOR EACH STATEMENT EXECUTE FUNCTION admitted()")
	}
}

// closeGate holds up what a process writes to a table from now on. The function it returns lets it go on, and all that waits.
func (s *stage) closeGate(region, table string) (open func()) {
	s.t.Helper()
	conn, err := pgx.Connect(context.Background(), s.dsn)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	if _, err := conn.Exec(context.Background(), "SELECT pg_advisory_lock($1)", gateKey); err != nil {
		s.t.Fatal(err)
	}
	s.exec("INSERT INTO gate VALUES ($1, $2)", region, table)
	return func() {
		s.exec("DELETE FROM gate")
		if err := conn.Close(context.Background()); err != nil {
			s.t.Fatal(err)
		}
	}
}

// admitted is how many writes that were held up the fence has let in afterwards.
func (s *stage) admitted() int64 { return s.number("SELECT last_value FROM admitted") }

// atGate returns the backend of the process whose write is held up, 0 if there is none.
func (s *stage) atGate(region string) (pid int64) {
	s.t.Helper()
	return s.number(`SELECT min(pid) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND objid = $1
		AND NOT granted AND datname = current_database() AND application_name = $2`, gateKey, region)
}

// logs is what to show of a failure.
func (s *stage) logs() string {
	var b bytes.Buffer
	for _, region := range cluster.Regions {
		data, err := os.ReadFile(s.log(region))
		if err != nil {
			data = []byte(err.Error())
		}
		all := bytes.Split(bytes.TrimSpace(data), []byte("\n"))
		fmt.Fprintf(&b, "--- %s\n%s\n", region, bytes.Join(all[max(0, len(all)-40):], []byte("\n")))
	}
	return b.String()
}

package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/writ-io/writ/region/agent"
)

// keepTail lists what only this server's log has, and copies it to where it is kept.
func (r *reinstating) keepTail(ctx context.Context, own controlled) error {
	fork, err := r.forkOf(ctx, own.timeline)
	if err != nil {
		return err
	}
	tell(r.say, "the new primary left timeline %d at %s", own.timeline, fork)
	if err := os.MkdirAll(r.keep, 0o700); err != nil {
		return fmt.Errorf("keep_dir: %w", err)
	}
	before := r.entries
	t := &tail{from: fork}
	said := agent.NewTail(outputKept)
	err = agent.Program{
		Args: r.args("pg_waldump", "--path="+filepath.Join(r.cfg.DataDir, "pg_wal"), "--timeline="+strconv.FormatUint(uint64(own.timeline), 10), "--start="+fork.String()),
		Env:  []string{"LC_ALL=C"}, Dir: "/", Stdout: t, Stderr: said, Mark: agent.Mark(ctx),
	}.Run(ctx)
	if ctx.Err() != nil {
		return err
	}
	// The log ends where no valid record comes any more, which pg_waldump calls an error.
	unreadable := err != nil && !strings.Contains(said.String(), "could not find a valid record after") && !strings.Contains(said.String(), "error in WAL record at")
	if reach, ok := reachOf(before); ok && (unreadable || t.end < reach) {
		tell(r.say, "a run before has listed what was lost, and kept it: since then a part of the log has gone")
		return r.remember()
	}
	if err := r.keepLog(own, fork); err != nil {
		return err
	}
	if unreadable {
		r.entries = []string{fmt.Sprintf("the log of timeline %d from %s on cannot be read: what was lost is not known", own.timeline, fork)}
		tell(r.say, "pg_waldump: %v: %s", err, strings.TrimSpace(said.String()))
		return r.remember()
	}
	r.entries = t.entries(own.timeline, r.relations(ctx, t))
	if len(r.entries) > 0 {
		tell(r.say, "what only this side had is kept in %s", r.keep)
	} else {
		tell(r.say, "no change was lost")
	}
	return r.remember()
}

// reachText is how far the log was listed.
var reachText = regexp.MustCompile(`^log \S+ to (\S+) of timeline `)

// reachOf answers how far a run before has listed the log; false if it has listed nothing.
func reachOf(entries []string) (lsn, bool) {
	if len(entries) == 0 {
		return 0, false
	}
	m := reachText.FindStringSubmatch(entries[0])
	if m == nil {
		return 0, false
	}
	at, err := parseLSN(m[1])
	return at, err == nil
}

// forkOf asks the new primary where it left a timeline.
func (r *reinstating) forkOf(ctx context.Context, timeline uint32) (lsn, error) {
	cfg, err := pgconn.ParseConfig(r.source)
	if err != nil {
		return 0, err
	}
	cfg.RuntimeParams["application_name"] = application
	cfg.RuntimeParams["replication"] = "database"
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return 0, fmt.Errorf("the history of the new primary: %w", err)
	}
	results, err := conn.Exec(ctx, fmt.Sprintf("TIMELINE_HISTORY %d", r.ahead.timeline)).ReadAll()
	if err = errors.Join(err, conn.Close(ctx)); err != nil {
		return 0, fmt.Errorf("the history of the new primary: %w", err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) != 2 {
		return 0, errors.New("the new primary does not tell the history of its timeline")
	}
	return forkIn(results[0].Rows[0][1], timeline)
}

// forkIn reads a timeline's history: a line for each ancestor, with the position at which it was left.
func forkIn(history []byte, timeline uint32) (lsn, error) {
	for line := range bytes.Lines(history) {
		fields := strings.Fields(string(line))
		if len(fields) < 2 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if n, err := strconv.ParseUint(fields[0], 10, 32); err == nil && uint32(n) == timeline {
			return parseLSN(fields[1])
		}
	}
	return 0, fmt.Errorf("timeline %d of this server is not an ancestor of the new primary's: it was promoted on its own; look at both before you copy over one", timeline)
}

// keepLog copies the files of the log from a position on.
func (r *reinstating) keepLog(own controlled, fork lsn) error {
	dir := filepath.Join(r.cfg.DataDir, "pg_wal")
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	to := filepath.Join(r.keep, "wal")
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	perID := uint64(1) << 32 / own.segment
	number := uint64(fork) / own.segment
	prefix := fmt.Sprintf("%08X", own.timeline)
	first := fmt.Sprintf("%s%08X%08X", prefix, number/perID, number%perID)
	for _, f := range files {
		if name := f.Name(); len(name) == len(first) && strings.HasPrefix(name, prefix) && name >= first {
			if err := copyFile(filepath.Join(dir, name), filepath.Join(to, name)); err != nil {
				return fmt.Errorf("keeping the log: %w", err)
			}
		}
	}
	return nil
}

// Bounds of what is remembered of a tail; the rest is counted.
const (
	tailChanges = 56
	tailLine    = 4096
)

// tail reads what pg_waldump prints, in constant memory.
type tail struct {
	from lsn

	line    []byte
	end     lsn
	records int
	commits int
	changed int
	changes []change
}

// change is a record that changes rows, or ends a transaction.
type change struct {
	tx, at, what string
	node         string // of the table: tablespace/database/file; empty for the end of a transaction
}

var (
	recordText = regexp.MustCompile(`^rmgr: (\S+)\s+len \(rec/tot\):\s*\d+/\s*(\d+), tx:\s*(\d+), lsn: ([0-9A-F]+/[0-9A-F]+), prev [0-9A-F/]+, desc: (.*)$`)
	nodeText   = regexp.MustCompile(`rel (\d+/\d+/\d+)`)
	// Of the records of tables, those that are not housekeeping.
	rowText = regexp.MustCompile(`^(INSERT|UPDATE|HOT_UPDATE|DELETE|MULTI_INSERT|TRUNCATE)(\+INIT)?\b`)
)

// Write implements io.Writer; it never fails.
func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		head, rest, ended := bytes.Cut(p, []byte("\n"))
		if room := tailLine - len(t.line); room > 0 {
			t.line = append(t.line, head[:min(room, len(head))]...)
		}
		if !ended {
			break
		}
		t.take(string(t.line))
		t.line, p = t.line[:0], rest
	}
	return n, nil
}

// take reads one line.
func (t *tail) take(line string) {
	m := recordText.FindStringSubmatch(line)
	if m == nil {
		return
	}
	at, err := parseLSN(m[4])
	length, errLength := strconv.ParseUint(m[2], 10, 32)
	if err != nil || errLength != nil {
		return
	}
	if at < t.from {
		return // it began before
	}
	t.records++
	t.end = at + lsn(length)
	c := change{tx: m[3], at: m[4]}
	switch kind := rowText.FindString(m[5]); {
	case (m[1] == "Heap" || m[1] == "Heap2") && kind != "":
		c.what = strings.TrimSuffix(kind, "+INIT")
		if node := nodeText.FindStringSubmatch(m[5]); node != nil {
			c.node = node[1]
		}
	case m[1] == "Transaction" && (strings.HasPrefix(m[5], "COMMIT") || strings.HasPrefix(m[5], "ABORT")):
		c.what, _, _ = strings.Cut(m[5], ";")
		if strings.HasPrefix(m[5], "COMMIT") {
			t.commits++
		}
	default:
		return
	}
	t.changed++
	if len(t.changes) < tailChanges {
		t.changes = append(t.changes, c)
	}
}

// entries says for people what was lost; nothing if no transaction was committed.
func (t *tail) entries(timeline uint32, relations map[string]string) []string {
	if t.commits == 0 {
		return nil
	}
	list := []string{fmt.Sprintf("log %s to %s of timeline %d: %d bytes, %d records, %d transactions committed", t.from, t.end, timeline, t.end-t.from, t.records, t.commits)}
	for _, c := range t.changes {
		text := fmt.Sprintf("%s tx %s %s", c.at, c.tx, c.what)
		switch name := relations[c.node]; {
		case name != "":
			text += " " + name
		case c.node != "":
			text += " relation " + c.node
		}
		list = append(list, text)
	}
	if more := t.changed - len(t.changes); more > 0 {
		list = append(list, fmt.Sprintf("and %d more changes: pg_waldump shows them from the files that are kept", more))
	}
	return list
}

// relations asks the new primary for the names of tables; those of other databases, or gone since, stay numbers.
func (r *reinstating) relations(ctx context.Context, t *tail) map[string]string {
	names := make(map[string]string)
	var nodes []string
	for _, c := range t.changes {
		if c.node != "" && !slices.Contains(nodes, c.node) {
			nodes = append(nodes, c.node)
		}
	}
	_ = with(ctx, r.source, false, func(conn *pgx.Conn) error { // without it numbers are shown
		for _, node := range nodes {
			var space, database, file uint32
			if _, err := fmt.Sscanf(node, "%d/%d/%d", &space, &database, &file); err != nil {
				continue
			}
			var name *string
			err := conn.QueryRow(ctx, `select pg_filenode_relation(case when $1::oid = 1663 then 0 else $1::oid end, $3::oid)::regclass::text
				from pg_database where datname = current_database() and oid = $2::oid`, space, database, file).Scan(&name)
			if err == nil && name != nil {
				names[node] = *name
			}
		}
		return nil
	})
	return names
}

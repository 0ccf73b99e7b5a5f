package postgres

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// lsn is a position in the write-ahead log.
type lsn uint64

func parseLSN(text string) (lsn, error) {
	high, low, ok := strings.Cut(text, "/")
	h, errHigh := strconv.ParseUint(high, 16, 32)
	l, errLow := strconv.ParseUint(low, 16, 32)
	if !ok || errHigh != nil || errLow != nil {
		return 0, fmt.Errorf("%.40q is no log position: it is written like 0/3000148", text)
	}
	return lsn(h<<32 | l), nil
}

func (l lsn) String() string { return fmt.Sprintf("%X/%X", uint64(l)>>32, uint32(l)) }

// place is a position in the log of a server.
type place struct {
	system   string // the system identifier
	timeline uint32
	at       lsn
}

func (p place) log() string { return p.system + "/" + strconv.FormatUint(uint64(p.timeline), 10) }

func (p place) proto() *writv1.Position {
	return &writv1.Position{Log: p.log(), Bytes: uint64(p.at), Text: p.at.String()}
}

// systemOf is the system identifier in a position's log.
func systemOf(p *writv1.Position) string {
	system, _, _ := strings.Cut(p.GetLog(), "/")
	return system
}

// state is what a server says of itself.
type state struct {
	place
	recovering bool
}

// whereQuery asks for role, system, timeline and position. A primary's timeline is that of the file that it writes: its
// control file is behind after a promotion. A standby's is the one that it receives, or has replayed last.
const whereQuery = `
select pg_is_in_recovery(), (select system_identifier::text from pg_control_system()),
  case when pg_is_in_recovery()
    then coalesce((select received_tli from pg_stat_wal_receiver where status = 'streaming'),
                  nullif((select min_recovery_end_timeline from pg_control_recovery()), 0),
                  (select timeline_id from pg_control_checkpoint()))
    else ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int end,
  coalesce(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_flush_lsn() end, '0/0')::text`

// where asks a server for its state. Between the look at the role and at the rest a server can be promoted, which is an error
// of the server, and is asked again.
func where(ctx context.Context, conn *pgx.Conn) (st state, err error) {
	for range 3 {
		var text string
		var timeline int64
		err = conn.QueryRow(ctx, whereQuery).Scan(&st.recovering, &st.system, &timeline, &text)
		if err == nil {
			st.timeline = uint32(timeline)
			st.at, err = parseLSN(text)
			return st, err
		}
		if ctx.Err() != nil || conn.IsClosed() {
			break
		}
	}
	return st, err
}

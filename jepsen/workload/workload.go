//go:build linux

package workload

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/jepsen/choice"
	"github.com/writ-io/writ/jepsen/cluster"
	"github.com/writ-io/writ/jepsen/lab"
	"github.com/writ-io/writ/jepsen/record"
	"github.com/writ-io/writ/jepsen/verdict"
)

// Kind is a workload.
type Kind struct {
	Name string
	// Doc is a sentence for people.
	Doc string
	// Rate is the least number of calls that succeed in a second while there are faults, on average over that time.
	Rate float64
	// Reads are operations that change nothing, and count neither for the rate nor for the recovery.
	Reads []string
	// Bound is how soon after the end of faults a call that is made then succeeds. It is what L1 promises for the leases of
	// the workload, and 20 s for a machine that is busy and for processes that have just been started.
	Bound time.Duration
	// Needs asks for what the lab has only for those who ask; nil: nothing. It is called before the lab is built.
	Needs func(*lab.Config)
	// Start prepares the work, before the first round.
	Start func(World) (Workload, error)
	// Check judges what only this workload promises.
	Check func(*record.History) []verdict.Judgement
}

// World is where the work is done.
type World struct {
	Lab    *lab.Lab
	Record *record.Writer
	Seed   uint64
	// Local has clients believe that what a node reads from its own state is what is.
	Local bool
}

// Workload is one at work.
type Workload interface {
	// Run works until ctx ends, and finishes what it has begun. Round is its number.
	Run(ctx context.Context, round int) error
	// Close is called once, after the last round, when no fault is left.
	Close(ctx context.Context) error
}

// Catcher is a workload that can tell while it is at work whether what it has seen breaks a promise.
type Catcher interface {
	Caught(ctx context.Context) (bool, error)
}

// Kinds are all workloads.
var Kinds = choice.Set[Kind]{
	All:  []Kind{register, counter, believing, appending, floors, watching, tabling, singletons, promoting, approving},
	Tell: func(k Kind) (name, doc string) { return k.Name, k.Doc },
}

// Attend has recorded what is said to the books of a lab that has more than one. It is called before the lab is started.
func Attend(config lab.Config, w *record.Writer) {
	if b := config.TableWriters; b != nil {
		Listen(b, PgAppends, w)
	}
	if b := config.Services; b != nil {
		listenToServices(b, w)
	}
	if b := config.Pair; b != nil {
		Listen(b, promotionWrites, w)
	}
}

// Client is the party that the harness calls from.
const Client = "client"

// allowance is what bounds have on top of L1.
const allowance = 20 * time.Second

// quorum are connections to all nodes from the client's party.
type quorum struct {
	conns [cluster.Size]*grpc.ClientConn
	nodes []writv1.LeaseServiceClient
}

func (w World) dial() (*quorum, error) {
	q := &quorum{}
	for i := range cluster.Size {
		conn, err := w.Lab.Nodes.DialBy(i, w.Lab.Net.Dial(Client))
		if err != nil {
			q.close()
			return nil, err
		}
		q.conns[i] = conn
		q.nodes = append(q.nodes, writv1.NewLeaseServiceClient(conn))
	}
	return q, nil
}

func (q *quorum) close() {
	for _, conn := range q.conns {
		if conn != nil {
			_ = conn.Close()
		}
	}
}

// judgement begins one that is valid.
func judgement(workload, check, reason string, rounds ...int) verdict.Judgement {
	return verdict.Judgement{Workload: workload, Check: check, Verdict: verdict.Valid, Reason: reason, Rounds: rounds}
}

// shown is how many lines of evidence a judgement has at most.
const shown = 20

// blame makes a judgement invalid, or adds to why.
func blame(j *verdict.Judgement, round int, format string, args ...any) {
	if j.Verdict != verdict.Invalid {
		j.Verdict, j.Rounds = verdict.Invalid, nil
	}
	if round > 0 && !slices.Contains(j.Rounds, round) {
		j.Rounds = append(j.Rounds, round)
	}
	if len(j.Evidence) < shown {
		j.Evidence = append(j.Evidence, fmt.Sprintf(format, args...))
	}
}

// garbled is the judgement on a record that a checker cannot read.
func garbled(workload, check string, err error) []verdict.Judgement {
	return []verdict.Judgement{{Workload: workload, Check: check, Verdict: verdict.Unknown, Reason: "the record cannot be read: " + err.Error()}}
}

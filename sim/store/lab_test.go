package store

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/sim/world"
)

// lab is a cluster in a world that the test drives itself.
type lab struct {
	*testing.T
	world     *world.World
	net       *world.Network
	cluster   Cluster
	processes []*world.Process
	members   map[*world.Process]Member
	observed  map[int][]int64 // revisions, by lineage
}

// inLab runs a test with both stores, on links that lose and repeat packets.
func inLab(t *testing.T, test func(l *lab)) {
	for name, make := range map[string]maker{"raft": makeRaft, "fast": makeBadFast} {
		t.Run(name, func(t *testing.T) { runLab(t, 1, make, test) })
	}
}

// makeBadFast makes one that behaves as in a run.
func makeBadFast(w *world.World, net *world.Network, processes []*world.Process) Cluster {
	return NewFast(w, net, testTiming, processes, FastConfig{})
}

func runLab(t *testing.T, seed uint64, make maker, test func(l *lab)) *lab {
	w := world.New(seed)
	l := &lab{T: t, world: w, members: map[*world.Process]Member{}, observed: map[int][]int64{}}
	l.net = w.NewNetwork(func(_, _ *world.Process) world.Quality {
		return world.Quality{Delay: 500 * time.Microsecond, Jitter: time.Millisecond, Loss: 5, Duplicate: 5}
	})
	world.Seeded(w.Dice("entropy"), func() {
		l.processes = testProcesses(w, 3)
		l.cluster = make(w, l.net, l.processes)
		l.cluster.OnDivergence(func(what string) { t.Error(what) })
		l.cluster.Observe(func(lineage int, c quorum.Change) {
			l.observed[lineage] = append(l.observed[lineage], c.Revision)
		})
		for _, p := range l.processes {
			l.start(p)
		}
		test(l)
	})
	return l
}

func (l *lab) start(p *world.Process) Member {
	l.Helper()
	p.Start()
	m, err := l.cluster.Open(p)
	if err != nil {
		l.Fatal(err)
	}
	l.cluster.Disk(p).OnFull = func() { l.crash(p) }
	l.members[p] = m
	return m
}

func (l *lab) crash(p *world.Process) {
	l.cluster.Crash(p)
	p.Crash()
	delete(l.members, p)
}

func (l *lab) run(d time.Duration) { l.world.Run(l.world.Now() + d) }

// until lets time pass until a condition holds, which must be soon.
func (l *lab) until(what string, holds func() bool) {
	l.Helper()
	for range 20_000 {
		if holds() {
			return
		}
		l.run(5 * time.Millisecond)
	}
	l.Fatalf("%s: not within %v", what, 100*time.Second)
}

// leader waits for one among the given processes that leads.
func (l *lab) leader(among ...*world.Process) (*world.Process, Member) {
	l.Helper()
	var leader *world.Process
	l.until("a leader", func() bool {
		at := slices.IndexFunc(among, func(p *world.Process) bool {
			return l.members[p] != nil && !p.Paused() && l.members[p].Leads()
		})
		if at >= 0 {
			leader = among[at]
		}
		return at >= 0
	})
	return leader, l.members[leader]
}

// again makes a call until it is answered otherwise than by ErrUnknown.
func (l *lab) again(what string, call func(done func(error))) error {
	l.Helper()
	var answer error
	answered := false
	for range 100 {
		call(func(err error) { answer, answered = err, !errors.Is(err, quorum.ErrUnknown) })
		for range 400 {
			if answered {
				return answer
			}
			l.run(5 * time.Millisecond)
		}
	}
	l.Fatalf("%s: no answer", what)
	return nil
}

func (l *lab) claim(m Member) (term quorum.Term) {
	l.Helper()
	for {
		err := l.again("claim", func(done func(error)) {
			m.Claim([]byte("claim"), func(t quorum.Term, err error) { term = t; done(err) })
		})
		if err == nil {
			return term
		}
	}
}

// commit makes a commit of one key, perhaps more than once.
func (l *lab) commit(m Member, term quorum.Term, key string) (revision int64) {
	l.Helper()
	err := l.again("commit", func(done func(error)) {
		m.Commit(term, []quorum.Write{{Key: quorum.LeaseKey("x") + key, Value: []byte(key)}}, func(r int64, err error) {
			revision = r
			done(err)
		})
	})
	if err != nil {
		l.Fatalf("commit %s in term %d: %v", key, term, err)
	}
	return revision
}

func (l *lab) load(m Member) map[string]quorum.Entry {
	l.Helper()
	state := map[string]quorum.Entry{}
	_ = l.again("load", func(done func(error)) {
		m.Load(func(entries []quorum.Entry, _ int64, err error) {
			for _, e := range entries {
				state[e.Key] = e
			}
			done(err)
		})
	})
	return state
}

func (l *lab) checkObserved(lineage int) {
	l.Helper()
	revisions := l.observed[lineage]
	for i := 1; i < len(revisions); i++ {
		if revisions[i] != revisions[i-1]+1 {
			l.Fatalf("lineage %d: observed revision %d after %d", lineage, revisions[i], revisions[i-1])
		}
	}
}

// chaos crashes, pauses and cuts while commits run.
func chaos(l *lab) {
	dice := l.world.Dice("chaos")
	term, acked := quorum.Term(0), 0
	var deposed quorum.Term
	for n := range 400 {
		p := l.processes[dice.Intn(3)]
		switch m := l.members[p]; {
		case m == nil:
			l.start(p)
		case dice.Chance(50):
			l.cluster.Disk(p).Torn = dice.Chance(500)
			l.crash(p)
		case dice.Chance(50):
			p.Pause()
			l.world.After(dice.Between(0, 3*time.Second), p.Resume)
		case dice.Chance(50):
			fault := &world.Fault{Cut: true, Hits: func(from, to *world.Process) bool { return from == p || to == p }}
			l.net.Add(fault)
			l.world.After(dice.Between(0, 3*time.Second), func() { l.net.Remove(fault) })
		case dice.Chance(100):
			p.Do(func() {
				m.Claim(nil, func(t quorum.Term, err error) { deposed, term = max(deposed, term), max(t, term) })
			})
		default:
			p.Do(func() {
				begun := term
				m.Commit(begun, []quorum.Write{{Key: quorum.NodeKey(p.Name), Value: []byte(fmt.Sprint(n))}}, func(_ int64, err error) {
					if err == nil {
						acked++
					}
				})
			})
		}
		l.run(dice.Between(0, 200*time.Millisecond))
	}
	if acked == 0 {
		l.Error("nothing was acknowledged")
	}
	l.checkObserved(0)
}

package store

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/sim/world"
)

// A member that was away for longer than the log goes back catches up by an image, and its watches do not notice.
func TestALongAbsenceEndsWithAnImage(t *testing.T) {
	runLab(t, 1, makeRaft, func(l *lab) {
		const commits = 3000
		_, m := l.leader(l.processes...)
		term := l.claim(m)
		last := l.commit(m, term, "first")
		var away *world.Process
		for _, p := range l.processes {
			if l.members[p] != m {
				away = p
			}
		}
		l.run(time.Second)
		var told []int64
		stop := l.members[away].Watch(1, func(c quorum.Change) { told = append(told, c.Revision) }, func(err error) { l.Error(err) })
		fault := &world.Fault{Cut: true, Hits: func(from, to *world.Process) bool { return from == away || to == away }}
		l.net.Add(fault)
		for n := range commits {
			m.Commit(term, []quorum.Write{{Key: quorum.NodeKey(fmt.Sprint(n % 10)), Value: fmt.Append(nil, n)}}, func(r int64, err error) {
				if err == nil {
					last = r
				}
			})
			l.run(5 * time.Millisecond)
		}
		l.run(100 * time.Millisecond)
		if first, _ := l.cluster.(*Raft).seats[l.processes[0]].log.FirstIndex(); first < commits/2 {
			l.Errorf("the log begins at %d", first)
		}
		l.net.Remove(fault)
		l.until("the member has caught up", func() bool { return l.members[away].Progress().Revision >= last })
		if last < commits || !slices.Equal(told, l.observed[0][:len(told)]) || int64(len(told)) < last {
			l.Errorf("told %d changes of %d", len(told), last)
		}

		// Once the history is gone, a watch that needs it ends.
		stop()
		l.net.Add(fault)
		l.run(3 * time.Second)
		ended := error(nil)
		l.members[away].Watch(0, func(quorum.Change) {}, func(err error) { ended = err })
		for range commits {
			m.Commit(term, nil, func(int64, error) {})
			l.run(5 * time.Millisecond)
		}
		m.Compact(last + commits/2)
		l.run(time.Second)
		l.net.Remove(fault)
		l.until("the watch ends", func() bool { return ended != nil })
	})
}

// raft does not find out by itself that an image was lost on its way.
func TestALostImageIsSentAgain(t *testing.T) {
	for seed := range uint64(3) {
		runLab(t, seed, makeRaft, func(l *lab) {
			_, m := l.leader(l.processes...)
			term := l.claim(m)
			var away *world.Process
			for _, p := range l.processes {
				if l.members[p] != m {
					away = p
				}
			}
			fault := &world.Fault{Cut: true, Hits: func(from, to *world.Process) bool { return from == away || to == away }}
			l.net.Add(fault)
			for range 2000 {
				m.Commit(term, nil, func(int64, error) {})
				l.run(5 * time.Millisecond)
			}
			l.net.Remove(fault)
			sent := false
			for !sent && l.world.Step() {
				m.(*replica).node.WithProgress(func(_ uint64, _ raft.ProgressType, pr tracker.Progress) {
					sent = sent || pr.State == tracker.StateSnapshot
				})
			}
			l.net.Add(fault)
			l.run(50 * time.Millisecond)
			l.net.Remove(fault)
			l.until("the member has caught up", func() bool { return l.members[away].Progress().Revision >= 2000 })
		})
	}
}

func testEntries(from, to, term uint64) []*raftpb.Entry {
	var entries []*raftpb.Entry
	for i := from; i <= to; i++ {
		entries = append(entries, &raftpb.Entry{Index: new(i), Term: new(term)})
	}
	return entries
}

// A disk that tears keeps any number of the first records under way, and all that was flushed.
func TestATornDiskLosesOnlyWhatWasNotFlushed(t *testing.T) {
	dice := world.NewDice(1, "torn")
	lasts := map[uint64]int{}
	for range 200 {
		l := newRaftLog(&lineage{}, 1, &image{index: 1, term: 1, conf: &raftpb.ConfState{}, kv: newKV()})
		l.append(testEntries(2, 9, 1))
		l.setHard(&raftpb.HardState{Term: new(uint64(1)), Vote: new(uint64(1)), Commit: new(uint64(5))}, true)
		l.crash(&raft.Ready{
			Entries:   testEntries(8, 12, 2),
			HardState: &raftpb.HardState{Term: new(uint64(2)), Vote: new(uint64(2)), Commit: new(uint64(9))},
		}, dice)
		for i := uint64(2); i <= 7; i++ {
			if term, err := l.Term(i); err != nil || term != 1 {
				t.Fatalf("entry %d is of term %d, %v", i, term, err)
			}
		}
		if l.hard != l.durable || l.hard.commit > l.last() || (l.hard.term == 2) != (l.hard.vote == 2) || l.hard.term == 2 && l.last() != 12 {
			t.Fatalf("hard state %+v with entries up to %d", l.hard, l.last())
		}
		lasts[l.last()*10+l.hard.term]++
	}
	for _, want := range []uint64{91, 81, 101, 111, 121, 122} {
		if lasts[want] == 0 {
			t.Errorf("never tore after %d in term %d: %v", want/10, want%10, lasts)
		}
	}
}

// Without the rule that a follower's promises wait for its disk, crashes of all lose what was acknowledged.
func TestChaosOnManySeeds(t *testing.T) {
	seeds := uint64(60)
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		runLab(t, 1000+seed, makeRaft, func(l *lab) {
			chaos(l)
			for _, p := range l.processes { // all agree in the end
				p.Resume()
				if l.members[p] == nil {
					l.start(p)
				}
			}
			l.run(10 * time.Second)
			_, m := l.leader(l.processes...)
			revision := l.commit(m, l.claim(m), "end")
			l.run(2 * time.Second)
			want := m.Backup()
			for _, p := range l.processes {
				got := l.members[p].Backup()
				same := slices.EqualFunc(got.Entries, want.Entries, func(a, b quorum.Entry) bool {
					return a.Key == b.Key && a.Revision == b.Revision && string(a.Value) == string(b.Value)
				})
				if got.Revision < revision || got.Revision != want.Revision || !same {
					l.Errorf("seed %d: %s is at %d, the leader at %d; the same: %v", seed, p.Name, got.Revision, want.Revision, same)
				}
			}
		})
	}
}

// A link that repeats every packet does not repeat commits.
func TestAProposalIsMadeOnce(t *testing.T) {
	runLab(t, 1, makeRaft, func(l *lab) {
		_, m := l.leader(l.processes...)
		term := l.claim(m)
		l.run(time.Second)
		l.net.Add(&world.Fault{Hits: func(_, _ *world.Process) bool { return true }, Quality: world.Quality{Duplicate: 1000}})
		answered := 0
		before := len(l.observed[0])
		for n := range 60 {
			proposer := l.members[l.processes[n%3]]
			proposer.Commit(term, nil, func(_ int64, err error) {
				if err == nil {
					answered++
				}
			})
			l.run(50 * time.Millisecond)
		}
		if made := len(l.observed[0]) - before; made > 60 || answered < 50 || answered > made {
			l.Errorf("%d commits of 60 answered, %d made", answered, made)
		}
	})
}

// A disk that was put back has lost what its member promised to have. Its raft ends in a panic, as etcd does, and so does its
// process; the others go on.
func TestADiskThatWasPutBack(t *testing.T) {
	runLab(t, 1, makeRaft, func(l *lab) {
		_, m := l.leader(l.processes...)
		term := l.claim(m)
		var victim *world.Process
		for _, p := range l.processes {
			if l.members[p] != m {
				victim = p
			}
		}
		image := l.cluster.Disk(victim).Image()
		for n := range 50 {
			l.commit(m, term, fmt.Sprint(n))
		}
		l.run(time.Second)
		beforeTerm, before := l.cluster.Disk(victim).Holds()
		l.crash(victim)
		l.cluster.Disk(victim).PutBack(image)
		if raftTerm, index := l.cluster.Disk(victim).Holds(); index >= before || raftTerm > beforeTerm {
			l.Errorf("holds %d of term %d, and %d of term %d before", index, raftTerm, before, beforeTerm)
		}
		l.start(victim)
		l.until("the process ends", func() bool { return !victim.Up() })
		l.commit(m, term, "still")
	})
}

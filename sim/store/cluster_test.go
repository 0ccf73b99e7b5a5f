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

func TestCrashOfAllLosesNoAcknowledgedCommit(t *testing.T) {
	inLab(t, func(l *lab) {
		acked := map[string]int64{}
		for round := range 8 {
			_, m := l.leader(l.processes...)
			term := l.claim(m)
			for n := range 20 {
				key := fmt.Sprint(round, "/", n)
				acked[key] = l.commit(m, term, key)
			}
			// Some more that the crash interrupts.
			for n := range 10 {
				m.Commit(term, []quorum.Write{{Key: quorum.NodeKey(fmt.Sprint(n)), Value: []byte{byte(round)}}}, func(int64, error) {})
				l.run(time.Duration(n) * 300 * time.Microsecond)
			}
			for i, p := range l.processes {
				l.cluster.Disk(p).Torn = (round+i)%2 == 0
				l.crash(p)
			}
			l.run(time.Second)
			for _, p := range l.processes {
				l.start(p)
			}
		}
		state := l.load(l.members[l.processes[0]])
		for key, revision := range acked {
			if e := state[quorum.LeaseKey("x")+key]; string(e.Value) != key || e.Revision > revision {
				l.Errorf("%s is %q at %d, acknowledged at %d", key, e.Value, e.Revision, revision)
			}
		}
		l.checkObserved(0)
	})
}

func TestOfTwoClaimsAtOnceOneLoses(t *testing.T) {
	inLab(t, func(l *lab) {
		_, m := l.leader(l.processes...)
		l.claim(m)
		l.run(time.Second)
		won, lost := 0, 0
		for range 20 {
			for range 2 {
				m.Claim([]byte("claim"), func(_ quorum.Term, err error) {
					switch {
					case err == nil:
						won++
					case errors.Is(err, quorum.ErrDeposed):
						lost++
					}
				})
			}
			l.run(5 * time.Second)
		}
		if won > 20 || won < 15 || lost < 15 {
			l.Errorf("%d of 20 pairs won, %d lost", won, lost)
		}
	})
}

func TestAPausedLeaderIsReplaced(t *testing.T) {
	inLab(t, func(l *lab) {
		old, m := l.leader(l.processes...)
		term := l.claim(m)
		l.commit(m, term, "a")
		late := errors.New("none")
		old.Do(func() {
			l.world.After(500*time.Millisecond, func() {
				old.Do(func() {
					m.Commit(term, []quorum.Write{{Key: quorum.NodeKey("late"), Value: []byte("x")}}, func(_ int64, err error) { late = err })
				})
			})
		})
		old.Pause()
		others := slices.DeleteFunc(slices.Clone(l.processes), func(p *world.Process) bool { return p == old })
		successor, s := l.leader(others...)
		next := l.claim(s)
		if successor == old || next <= term {
			l.Fatalf("%s claimed %d after %s did %d", successor.Name, next, old.Name, term)
		}
		old.Resume()
		l.run(5 * time.Second)
		if late == nil {
			l.Error("a late commit was acknowledged")
		}
		if m.Leads() {
			l.Error("the old leader still believes that it leads")
		}
		if _, there := l.load(s)[quorum.NodeKey("late")]; there {
			l.Error("a late commit was made")
		}
		if err := l.again("confirm", func(done func(error)) { m.Confirm(term, done) }); !errors.Is(err, quorum.ErrDeposed) {
			l.Errorf("confirm: %v", err)
		}
	})
}

func TestMembership(t *testing.T) {
	inLab(t, func(l *lab) {
		_, m := l.leader(l.processes...)
		term := l.claim(m)
		l.commit(m, term, "a")
		var id uint64
		err := l.again("add", func(done func(error)) {
			m.AddMember("fourth", func(i uint64, err error) { id = i; done(err) })
		})
		if err != nil {
			l.Fatal(err)
		}
		if err := l.again("promote", func(done func(error)) { m.PromoteMember(id, done) }); !errors.Is(err, ErrNotReady) {
			l.Errorf("promote a member that is not there: %v", err)
		}
		fourth := l.world.NewProcess("fourth", "region", 0)
		if _, err := l.cluster.Open(fourth); !errors.Is(err, ErrNoData) {
			l.Errorf("open on an empty disk: %v", err)
		}
		l.cluster.Join(fourth, id)
		f := l.start(fourth)
		info := func(of Member) (info quorum.MemberInfo) {
			for _, i := range of.Members() {
				if i.ID == id {
					info = i
				}
			}
			return info
		}
		l.until("the learner is known", func() bool { return info(f).Started && info(m).Started })
		if got, want := info(m), (quorum.MemberInfo{ID: id, Name: "fourth", Started: true, Learner: true}); got.Name != want.Name || !got.Learner {
			l.Errorf("learner is %+v, want %+v", got, want)
		}
		if err := l.again("promote", func(done func(error)) { m.PromoteMember(id, done) }); err != nil {
			l.Fatal(err)
		}
		l.until("the learner votes", func() bool { return !info(m).Learner && !info(f).Learner })

		// With it, two of the first three are not needed for a majority any more, and a lost one can be removed.
		var lost *world.Process
		for _, p := range l.processes {
			if l.members[p] != m {
				lost = p
			}
		}
		lostMember := l.members[lost]
		changes := 0
		lostMember.OnChange(func() { changes++ })
		if err := l.again("remove", func(done func(error)) { m.RemoveMember(lostMember.ID(), done) }); err != nil {
			l.Fatal(err)
		}
		l.until("the removed one knows", func() bool {
			return changes > 0 && !slices.ContainsFunc(lostMember.Members(), func(i quorum.MemberInfo) bool { return i.ID == lostMember.ID() })
		})
		if len(m.Members()) != 3 {
			l.Errorf("members are %+v", m.Members())
		}
		if string(l.load(f)[quorum.LeaseKey("x")+"a"].Value) != "a" {
			l.Error("the new member does not have what was there before")
		}
		_, m = l.leader(append(l.processes, fourth)...)
		l.commit(m, l.claim(m), "b")
	})
}

func TestRebuildBeginsALineage(t *testing.T) {
	inLab(t, func(l *lab) {
		_, m := l.leader(l.processes...)
		l.commit(m, l.claim(m), "kept")
		backup := m.Backup()
		backup.Revision += 1000
		l.commit(m, l.claim(m), "lost")
		before := m.ID()
		for _, p := range l.processes {
			l.crash(p)
		}
		fresh := l.world.NewProcess("fresh", "region", 0)
		l.cluster.Rebuild(backup, []*world.Process{l.processes[0], fresh})
		l.start(l.processes[0])
		l.start(fresh)
		stranger := l.start(l.processes[1]) // of the old cluster, without a majority
		first := int64(0)
		ended := error(nil)
		l.members[fresh].Watch(backup.Revision+1, func(c quorum.Change) { first = max(first, c.Revision) }, func(error) {})
		l.members[fresh].Watch(1, func(quorum.Change) { l.Error("delivered what is gone") }, func(err error) { ended = err })
		if !errors.Is(ended, quorum.ErrCompacted) {
			l.Errorf("watch of what is gone: %v", ended)
		}
		_, m = l.leader(l.processes[0], fresh)
		l.commit(m, l.claim(m), "new")
		state := l.load(l.members[fresh])
		if len(state[quorum.LeaseKey("x")+"kept"].Value) == 0 || len(state[quorum.LeaseKey("x")+"new"].Value) == 0 ||
			len(state[quorum.LeaseKey("x")+"lost"].Value) > 0 {
			l.Errorf("state is %v", state)
		}
		if m.ID() <= before || stranger.Leads() || len(stranger.Members()) != 3 {
			l.Error("the clusters mix")
		}
		if seen := l.observed[1]; len(seen) < 2 || seen[0] != backup.Revision+1 {
			l.Errorf("observed %v of the new lineage", seen)
		}
		l.checkObserved(1)
	})
}

func TestForceNewBeginsALineage(t *testing.T) {
	inLab(t, func(l *lab) {
		_, m := l.leader(l.processes...)
		revision := l.commit(m, l.claim(m), "kept")
		l.run(time.Second)
		for _, p := range l.processes {
			l.crash(p)
		}
		alone := l.processes[2]
		l.cluster.ForceNew(alone)
		s := l.start(alone)
		old := []Member{l.start(l.processes[0]), l.start(l.processes[1])}
		l.leader(alone)
		delivered := int64(0)
		s.Watch(revision, func(c quorum.Change) { delivered++ }, func(err error) { l.Error(err) })
		l.commit(s, l.claim(s), "new")
		if _, there := l.load(s)[quorum.LeaseKey("x")+"kept"]; !there || len(s.Members()) != 1 || delivered < 3 {
			l.Errorf("state is %v, members %v, %d delivered", l.load(s), s.Members(), delivered)
		}
		_, m = l.leader(l.processes[:2]...)
		l.commit(m, l.claim(m), "other")
		if _, there := l.load(s)[quorum.LeaseKey("x")+"other"]; there || len(old[0].Members()) != 3 {
			l.Error("the clusters mix")
		}
		if len(l.observed[1]) == 0 || l.observed[1][0] <= revision {
			l.Errorf("observed %v", l.observed)
		}
		l.checkObserved(0)
		l.checkObserved(1)
	})
}

func TestADiskThatIsFull(t *testing.T) {
	inLab(t, func(l *lab) {
		p, m := l.leader(l.processes...)
		term := l.claim(m)
		l.commit(m, term, "a")
		m.Watch(1, func(quorum.Change) {}, func(error) {})
		l.cluster.Disk(p).Full = true
		m.Commit(term, nil, func(_ int64, err error) { l.Errorf("answered %v without a disk", err) })
		l.until("the process ends", func() bool { return !p.Up() })
		l.cluster.Disk(p).Full = false
		m = l.start(p)
		if _, there := l.load(m)[quorum.LeaseKey("x")+"a"]; !there {
			l.Error("what was flushed is lost")
		}
	})
}

func TestRunsOfOneSeedAreTheSame(t *testing.T) {
	for _, make := range []maker{makeRaft, makeBadFast} {
		digests := map[uint64]bool{}
		for seed := range uint64(20) {
			one := runLab(t, seed, make, chaos).world.Digest()
			if two := runLab(t, seed, make, chaos).world.Digest(); one != two {
				t.Errorf("seed %d: digests %x and %x", seed, one, two)
			}
			digests[one] = true
		}
		if len(digests) != 20 {
			t.Errorf("20 seeds led to %d digests", len(digests))
		}
	}
}

package store

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/writ-io/writ/quorum"
	"github.com/writ-io/writ/sim/world"
)

// Every fate that a call may have happens, and a commit that is late has no effect in a newer term.
func TestFastKeepsSilent(t *testing.T) {
	make := func(w *world.World, net *world.Network, processes []*world.Process) Cluster {
		return NewFast(w, net, testTiming, processes, FastConfig{Silent: 200, Lost: 200, Late: 200})
	}
	runLab(t, 1, make, func(l *lab) {
		_, m := l.leader(l.processes...)
		var silent, lost, soon, late, refused int
		for round := range 10 {
			begun := l.claim(m)
			answers := map[string]error{}
			for n := range 20 {
				key := fmt.Sprintf("%d/%d", round, n)
				m.Commit(begun, []quorum.Write{{Key: quorum.LeaseKey("x") + key, Value: []byte("x")}}, func(_ int64, err error) {
					answers[key] = err
				})
			}
			l.run(50 * time.Millisecond)
			for _, err := range answers {
				if err != nil {
					l.Errorf("refused early: %v", err)
				}
			}
			soon += len(answers)
			next := l.claim(m)
			atClaim := l.load(m)
			l.run(4 * time.Second)
			state := l.load(m)
			for n := range 20 {
				key := fmt.Sprintf("%d/%d", round, n)
				e, made := state[quorum.LeaseKey("x")+key]
				_, madeBefore := atClaim[quorum.LeaseKey("x")+key]
				err, answered := answers[key]
				switch {
				case made != madeBefore:
					l.Errorf("%s of term %d was made at %d, after claim %d", key, begun, e.Revision, next)
				case answered && (err == nil) != made, errors.Is(err, quorum.ErrDeposed) && made:
					l.Errorf("%s was answered %v, made: %v", key, err, made)
				case !answered && made:
					silent++
				case !answered:
					lost++
				case errors.Is(err, quorum.ErrDeposed):
					refused++
				default:
					late++
				}
			}
		}
		late -= soon
		if silent == 0 || lost == 0 || soon == 0 || late == 0 || refused == 0 {
			l.Errorf("%d silent, %d lost, %d soon, %d late, %d refused", silent, lost, soon, late, refused)
		}
	})
}

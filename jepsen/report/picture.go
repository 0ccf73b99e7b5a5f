//go:build linux

package report

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/writ-io/writ/jepsen/history"
	"github.com/writ-io/writ/jepsen/judge"
	"github.com/writ-io/writ/jepsen/verdict"
	"github.com/writ-io/writ/jepsen/workload"
)

// picture is porcupine's page for a resource, to stand in a frame of its own.
type picture struct {
	Title string
	Page  string
}

// mostPictures bounds the size of the page.
const mostPictures = 3

// pictures are made of histories that are not linearizable.
func pictures(r *judge.Report) (all []picture, err error) {
	for _, j := range r.Judgements {
		if j.Workload != "register" || j.Check != "linearizable" || j.Verdict != verdict.Invalid || len(all) == mostPictures {
			continue
		}
		rounds, err := workload.Ops(r.History, j.Workload)
		if err != nil {
			return nil, err
		}
		for _, round := range j.Rounds {
			var violation *history.Violation
			if !errors.As(history.Check(rounds[round], time.Minute), &violation) {
				continue
			}
			var b bytes.Buffer
			if err := history.Visualize(&b, rounds[round], violation.Resource, time.Minute); err != nil {
				return nil, err
			}
			all = append(all, picture{fmt.Sprintf("%s in round %d", violation.Resource, round), b.String()})
		}
	}
	return all, nil
}

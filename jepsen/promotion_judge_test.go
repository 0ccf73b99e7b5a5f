//go:build linux

package jepsen_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// judgePromotion holds a failover that serves against what was promised.
func (l *promotionLab) judgePromotion(p *writv1.Promotion, cut time.Time, old uint64) {
	l.Helper()
	line := p.GetTimeline()
	fencing := line.GetFenced().AsTime().Sub(line.GetDecided().AsTime())
	l.Logf("time to healthy: %v after it was noticed, %v after the cut; fenced in %v, with G + W = %v", line.GetTimeToHealthy().AsDuration(),
		line.GetServing().AsTime().Sub(cut).Round(time.Millisecond), fencing.Round(time.Millisecond), promotionLease+promotionSlack)
	how := make(map[string]writv1.GuardProof)
	for _, proof := range p.GetProofs() {
		how[proof.GetGuard()] = proof.GetHow()
	}
	if how["g-eu"] != writv1.GuardProof_GUARD_PROOF_LAPSED || how["g-us"] != writv1.GuardProof_GUARD_PROOF_ACKED {
		l.Errorf("proofs: %v", how)
	}
	if p.GetToken() <= old || p.GetExpectedToken() != old {
		l.Errorf("token %d after %d, and %d was expected", p.GetToken(), old, p.GetExpectedToken())
	}
	if tails := p.GetTails(); len(tails) != 1 || tails[0].GetFrom() != "eu" || tails[0].GetToken() != old || tails[0].GetLastOfTo() == nil {
		l.Errorf("the tail that was recorded: %v", tails)
	} else {
		l.Logf("the tail that was recorded: %v", tails[0])
	}
	group, err := l.group(l.Context())
	if err != nil || group.GetPrimary() != "us" || group.GetToken() != p.GetToken() || !slices.Equal(group.GetQuarantined(), []string{"eu"}) {
		l.Errorf("the group is %v: %v", group, err)
	}
}

var tailRange = regexp.MustCompile(`^log ([0-9A-F]+/[0-9A-F]+) to ([0-9A-F]+/[0-9A-F]+) of timeline \d+: \d+ bytes, \d+ records, (\d+) transactions committed$`)

// judgeTail compares what was acknowledged and is gone with what the tail lists and what was kept of the log.
func (l *promotionLab) judgeTail(p *writv1.Promotion, old uint64) (lost map[string]bool) {
	l.Helper()
	entries := p.GetTails()[0].GetEntries()
	if len(entries) == 0 {
		l.Fatalf("no tail is listed: %v", p.GetTails())
	}
	listed := tailRange.FindStringSubmatch(entries[0])
	if listed == nil {
		l.Fatalf("the tail is listed as %q", entries[0])
	}
	kept, err := filepath.Glob(filepath.Join(l.databases["eu"].dir, "keep", p.GetId()+"-*", "wal"))
	if err != nil || len(kept) != 1 {
		l.Fatalf("the log was kept in %v: %v", kept, err)
	}
	commits := l.databases["eu"].committedIn(kept[0], listed[1])
	l.Logf("the tail: %s; %d lines in all", entries[0], len(entries))
	if fmt.Sprint(len(commits)) != listed[3] {
		l.Errorf("%d transactions are in what was kept of the log, and %s are listed", len(commits), listed[3])
	}
	lost = make(map[string]bool)
	all := l.book.all() // before it is asked what there is: writers go on
	there := l.databases["us"].ids()
	for id, a := range all {
		switch {
		case there[id] && a.token == old && commits[a.XID] != "":
			l.Errorf("%s is there, and transaction %s is listed as lost", id, a.XID)
		case there[id]:
		case a.token != old:
			if a.token > old {
				l.Errorf("%s, acknowledged in %s under the newer token %d, is lost", id, a.region, a.token)
			}
		case commits[a.XID] == "":
			l.Errorf("%s is lost, and transaction %s, which wrote it, is not in the tail", id, a.XID)
		default:
			lost[id] = true
		}
	}
	l.Logf("%d acknowledged orders are lost, each of them within the tail", len(lost))
	if len(lost) == 0 {
		l.Error("nothing was lost: the test is too weak")
	}
	return lost
}

// noLateOrders holds eu's guard to its promise: nothing was taken under the old token in the last W before it was given up, nor
// after every guard had been proved.
func (l *promotionLab) noLateOrders(p *writv1.Promotion, cut time.Time, old uint64) {
	l.Helper()
	fenced, givenUp := p.GetTimeline().GetFenced().AsTime(), l.givenUp("g-eu", cut)
	if givenUp.After(fenced) {
		l.Errorf("the guard was given up %v after the fencing, which it is the proof of", givenUp.Sub(fenced))
	}
	for id, a := range l.book.all() {
		if a.token == old && a.began.After(givenUp.Add(-promotionSlack)) && !strings.Contains(id, "-direct") {
			l.Errorf("%s was sent %v after the guard was given up, and it let it through: that has to be W, %v, before", id, a.began.Sub(givenUp), promotionSlack)
		}
	}
}

// givenUp is when the quorum committed that a guard's lease, and W, had run out: the first time after an instant.
func (l *promotionLab) givenUp(guard string, after time.Time) time.Time {
	l.Helper()
	ask := &writv1.ListAuditRequest{Target: guard, Action: "guard.lapse", Since: timestamppb.New(after)}
	var found *writv1.ListAuditResponse
	eventually(l.T, "when "+guard+" was given up", func(ctx context.Context) (err error) {
		if found, err = writv1.NewAuditServiceClient(l.admin[0]).ListAudit(ctx, ask); err == nil && len(found.GetRecords()) == 0 {
			err = errors.New("it was not")
		}
		return err
	})
	return found.GetRecords()[0].GetAt().AsTime()
}

// noneLeft checks that a server which was put back has nothing of what was lost: it would come up again at the next change.
func (l *promotionLab) noneLeft(d *database, lost map[string]bool) {
	l.Helper()
	there := d.ids()
	for id := range lost {
		if there[id] {
			l.Errorf("%s is listed as lost, and %s still has it", id, d.region)
		}
	}
}

// judgeDrain holds a drain to what it told: whatever was acknowledged under the token that it ended lies before the position.
func (l *promotionLab) judgeDrain(p *writv1.Promotion) {
	l.Helper()
	judged := 0
	for id, a := range l.book.all() {
		if a.token != p.GetExpectedToken() {
			continue
		}
		high, low, _ := strings.Cut(a.LSN, "/")
		h, errHigh := strconv.ParseUint(high, 16, 32)
		lower, errLow := strconv.ParseUint(low, 16, 32)
		if errHigh != nil || errLow != nil {
			l.Fatalf("%s was written at %q", id, a.LSN)
		}
		if judged++; h<<32|lower >= p.GetDrained().GetBytes() {
			l.Errorf("%s was acknowledged in %s at %s, and the drain told %v", id, a.region, a.LSN, p.GetDrained())
		}
	}
	if judged == 0 {
		l.Error("nothing was written before the drain: the test is too weak")
	}
}

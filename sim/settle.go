package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/sim/judge"
	"github.com/writ-io/writ/sim/plan"
	"github.com/writ-io/writ/singleton/cron"
	"github.com/writ-io/writ/singleton/partition"
)

// bookWorks lets the judge know of what is done in one place.
func (r *run) bookWorks() {
	for i := range r.plan.Works {
		w := &r.plan.Works[i]
		if w.Partitions > 0 {
			names, err := partition.NewNames(w.Name)
			if err != nil {
				panic(err) // plans are valid
			}
			r.judge.Consumers(w.Name, names, w.Partitions)
		}
		if w.Every > 0 {
			slots, err := w.Schedule()
			if err != nil {
				panic(err)
			}
			r.judge.Job(judge.Job{Name: w.Name, Schedule: slots, Policy: w.Policy(), Start: r.storage.process.Clock.Wall(), Agree: r.timesAgree()})
		}
	}
}

// slotRecorded notes what became of a slot.
func (r *run) slotRecorded(rec cron.Record) {
	switch {
	case rec.Outcome == cron.Abandoned:
		r.mark(MarkSlotAbandoned)
	case rec.Outcome == cron.Skipped && rec.Reason == "paused":
		r.mark(MarkSlotPaused)
	case rec.Outcome == cron.Skipped && rec.Reason == "missed":
		r.mark(MarkSlotMissed)
	case rec.Outcome == cron.Skipped && !rec.Manual:
		r.mark(MarkSlotOverlap)
	}
}

// timesAgree tells whether nobody sets the time of day of a service.
func (r *run) timesAgree() bool {
	return !slices.ContainsFunc(r.plan.Faults, func(f plan.Fault) bool {
		return f.Kind == plan.WallJump && slices.ContainsFunc(r.plan.Services, func(s plan.Service) bool {
			return slices.Contains(f.A, s.Name) || slices.Contains(f.A, s.Region) || slices.Contains(f.A, plan.Holder)
		})
	})
}

// doers are the services that do a work.
func (r *run) doers(name string) []*service {
	var doers []*service
	for _, s := range r.services {
		if slices.Contains(s.spec.Works, name) {
			doers = append(doers, s)
		}
	}
	return doers
}

// settle waits until everything that is done in one place is done again: every function runs somewhere, every slot up to the
// end of all faults was run or is accounted for, and every partition is worked on, balanced within one.
func (r *run) settle() {
	healed := r.storage.process.Clock.Wall()
	limit := r.world.Now() + r.settlePatience()
	missing := func() string {
		for i := range r.plan.Works {
			if what := r.unsettled(&r.plan.Works[i], healed); what != "" {
				return what
			}
		}
		return ""
	}
	for r.world.Now() < limit && missing() != "" {
		r.world.Run(r.world.Now() + 100*time.Millisecond)
	}
	if what := missing(); what != "" {
		r.violation("L1", fmt.Sprintf("%s, %v after the end of all faults", what, r.settlePatience()))
	}
	for range r.judge.Thinned() {
		r.mark(MarkThinned)
	}
}

// settlePatience is how long that may take: leases run out and are granted, functions that do not return end their processes,
// slots that were missed are run, and one that is delayed falls due.
func (r *run) settlePatience() time.Duration {
	patience := r.patience()
	for i := range r.plan.Works {
		w := &r.plan.Works[i]
		patience += 2*w.Every + w.Jitter + 20*w.Takes + 2*w.Stop
	}
	for _, s := range r.plan.Services {
		patience = max(patience, patience+2*s.Grace+2*s.TTL)
	}
	return patience
}

// unsettled says what is missing of a work.
func (r *run) unsettled(w *plan.Work, healed time.Time) string {
	doers := r.doers(w.Name)
	running := func(s *service, name string) bool {
		return slices.ContainsFunc(s.functions, func(f *function) bool { return f.Resource == lease.Resource(name) && f.works() })
	}
	switch {
	case len(doers) == 0:
	case w.Every > 0:
		if r.timesAgree() && r.judge.JobAt(lease.Resource(w.Name)).Before(healed) {
			return fmt.Sprintf("slots of %s up to %v are run or accounted for, and not those up to %v", w.Name, r.judge.JobAt(lease.Resource(w.Name)), healed)
		}
	case w.Partitions > 0:
		var members []string
		for _, s := range doers {
			members = append(members, s.client.caller.Instance)
		}
		if ok, how := r.judge.AtRest(w.Name, members); !ok {
			return w.Name + ": " + how
		}
		names, _ := partition.NewNames(w.Name)
		for i := range w.Partitions {
			if !slices.ContainsFunc(doers, func(s *service) bool { return running(s, names.Partition(i)) }) {
				return fmt.Sprintf("nobody works on partition %d of %s", i, w.Name)
			}
		}
	case !slices.ContainsFunc(doers, func(s *service) bool { return running(s, w.Name) }):
		return "nobody does " + w.Name
	}
	return ""
}

package sim

import (
	"time"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/sim/plan"
	"github.com/writ-io/writ/sim/trace"
	"github.com/writ-io/writ/singleton/cron"
)

// steward is who pauses, resumes and triggers jobs: what singleton.PauseJob and its like are in production.
type steward struct {
	client   *client
	triggers int
}

const (
	stewardName = "steward"
	// steerTTL is how long others wait for one who died while they changed a control document, as in production.
	steerTTL = 5 * time.Second
)

func newSteward(r *run) *steward {
	region := ""
	if len(r.plan.Nodes) > 0 {
		region = r.plan.Nodes[0].Region
	}
	return &steward{client: newClient(r, plan.Client{Name: stewardName, Region: region, TTL: steerTTL})}
}

// steer changes the control document of a job while it holds it.
func (s *steward) steer(job string, change func(cron.Control) (cron.Control, error)) {
	c := s.client
	g := &grip{client: c, resource: lease.Resource(cron.ControlPrefix + job), ttl: steerTTL}
	again := func() { c.process.After(time.Second, func() { s.steer(job, change) }) }
	g.onGrant = func(grant *lease.Grant) {
		control, err := cron.ParseControl(grant.Checkpoint)
		if err != nil {
			c.run.violation("J1", err.Error())
			return
		}
		if control, err = change(control); err != nil {
			g.release(func() {})
			return
		}
		g.checkpoint(control.Encode(), func() bool { return true }, func(ok bool) {
			g.release(func() {})
			if !ok {
				again()
			}
		})
	}
	g.ask()
}

// do does what a fault says.
func (s *steward) do(kind plan.Kind, job string) {
	c := s.client
	c.run.story.event(c.process, trace.EventOperator, "%s %s", kind, job)
	s.triggers++
	id := "t" + decimal(uint64(s.triggers))
	at := c.process.Clock.Wall().Truncate(time.Second)
	s.steer(job, func(control cron.Control) (cron.Control, error) {
		switch kind {
		case plan.Suspend:
			c.run.mark(MarkJobPaused)
			return control.WithPause(cron.Pause{Note: "simulated", By: stewardName, At: at})
		case plan.Resume:
			control.Pause = nil
			return control, nil
		default:
			return control.WithTrigger(cron.Trigger{ID: id, By: stewardName, At: at})
		}
	})
}

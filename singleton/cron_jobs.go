package singleton

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/singleton/cron"
	"github.com/writ-io/writ/singleton/schedule"
)

// JobInfo is what is known of a job.
type JobInfo struct {
	Name string
	// Lease says who holds it: the process that runs it.
	Lease lease.Info
	// State is what the last holder has stored, and Control what people want of the job.
	State   cron.State
	Control cron.Control
	// Next are the next slots, without jitter, in the zone of the spec.
	Next []time.Time
	// Problem says why State, Control or Next is missing; nil if they are not.
	Problem error
}

// jobSlots is how many of the next slots a JobInfo tells.
const jobSlots = 5

// jobsAtOnce is how many jobs are read at a time.
const jobsAtOnce = 32

// Jobs returns the jobs whose names begin with a prefix, in the order of their names: what was ever run by [Singleton.Cron]
// and is not forgotten. Each job is as the node that answers has it, perhaps a moment behind; [Singleton.Job] is not. Errors: as
// those of lease.Client.List and Get.
func (s *Singleton) Jobs(ctx context.Context, prefix string) ([]JobInfo, error) {
	var names []string
	for info, err := range s.client.List(ctx, lease.ListOptions{Prefix: prefix, PageSize: 1000}) {
		if err != nil {
			return nil, err
		}
		if isJob(info) {
			names = append(names, string(info.Resource))
		}
	}
	found := make([]*JobInfo, len(names))
	reading, ctx := errgroup.WithContext(ctx)
	reading.SetLimit(jobsAtOnce)
	for i, name := range names {
		reading.Go(func() error {
			job, err := s.job(ctx, name, true)
			if lease.ReasonOf(err) == lease.ReasonNotFound {
				return nil // forgotten since
			}
			found[i] = &job
			return err
		})
	}
	if err := reading.Wait(); err != nil {
		return nil, err
	}
	jobs := make([]JobInfo, 0, len(found))
	for _, job := range found {
		if job != nil {
			jobs = append(jobs, *job)
		}
	}
	return jobs, nil
}

// Job returns what is known of a job. Errors: NOT_FOUND, also for a resource that is not that of a job; as those of
// lease.Client.Get.
func (s *Singleton) Job(ctx context.Context, name string) (JobInfo, error) {
	return s.job(ctx, name, false)
}

// job reads a job, if local is set as one node has it.
func (s *Singleton) job(ctx context.Context, name string, local bool) (JobInfo, error) {
	info, err := s.jobLease(ctx, name, local)
	if err != nil {
		return JobInfo{}, err
	}
	job := JobInfo{Name: name, Lease: info}
	control, err := s.client.Get(ctx, cron.ControlPrefix+name, lease.GetOptions{Local: local, WithCheckpoint: true})
	if err != nil && lease.ReasonOf(err) != lease.ReasonNotFound {
		return JobInfo{}, err
	}
	if job.Control, err = cron.ParseControl(control.Checkpoint); err != nil {
		job.Problem = err
	}
	if len(info.Checkpoint) == 0 {
		return job, nil // it was acquired a moment ago
	}
	if job.State, err = cron.ParseState(info.Checkpoint); err != nil {
		job.Problem = err
		return job, nil
	}
	parsed, err := schedule.Parse(job.State.Spec, job.State.Zone)
	if err != nil {
		job.Problem = err
		return job, nil
	}
	after := job.State.Cursor
	if now := s.client.Clock().Wall(); now.After(after) {
		after = now
	}
	for range jobSlots {
		slot, ok := parsed.Next(after)
		if !ok {
			break
		}
		job.Next, after = append(job.Next, slot), slot
	}
	return job, nil
}

func isJob(info lease.Info) bool {
	var metadata cronMetadata
	return json.Unmarshal(info.Metadata, &metadata) == nil && metadata.Writ == cronMark
}

func (s *Singleton) jobLease(ctx context.Context, name string, local bool) (lease.Info, error) {
	info, err := s.client.Get(ctx, name, lease.GetOptions{Local: local, WithCheckpoint: true})
	if err == nil && !isJob(info) {
		err = lease.Errorf(lease.ReasonNotFound, "%q is not the name of a job", name)
	}
	return info, err
}

// PauseJob has the slots of a job skipped from now on, until [Singleton.ResumeJob]. What runs goes on, and triggers run.
// The note, up to 512 bytes, tells others why. Errors: NOT_FOUND if there is no such job; INVALID; DENIED if this process may
// not acquire the job's control document; otherwise why the quorum could not be asked.
func (s *Singleton) PauseJob(ctx context.Context, name, note string) error {
	return s.steerJob(ctx, name, func(c cron.Control, by string) (cron.Control, error) {
		return c.WithPause(cron.Pause{Note: note, By: by, At: s.client.Clock().Wall().Truncate(time.Second)})
	})
}

// ResumeJob ends a pause. Slots that were skipped are not made up for. A job that is not paused goes on. Errors: as those of
// [Singleton.PauseJob].
func (s *Singleton) ResumeJob(ctx context.Context, name string) error {
	return s.steerJob(ctx, name, func(c cron.Control, _ string) (cron.Control, error) {
		c.Pause = nil
		return c, nil
	})
}

// TriggerJob has a job run once, at once or after what runs now, whether or not it is paused, and returns the [Tick.ID] of the
// run, under which the history tells of it. The id, up to 64 printable characters without blanks, makes the call repeatable:
// the same id runs once; empty draws one. A trigger that nobody could run for an hour lapses. Errors: as those of
// [Singleton.PauseJob]; LIMIT for more than 16 triggers within an hour.
func (s *Singleton) TriggerJob(ctx context.Context, name, id string) (string, error) {
	if id == "" {
		id = strings.ToLower(rand.Text()[:10])
	}
	err := s.steerJob(ctx, name, func(c cron.Control, by string) (cron.Control, error) {
		return c.WithTrigger(cron.Trigger{ID: id, By: by, At: s.client.Clock().Wall().Truncate(time.Second)})
	})
	if err != nil {
		return "", err
	}
	return cron.TriggerID(name, id), nil
}

// steerTTL is how long others wait for a process that died while it changed a control document.
const steerTTL = 5 * time.Second

// steerJob changes a control document while it holds it, so that no change is lost.
func (s *Singleton) steerJob(ctx context.Context, name string, change func(c cron.Control, by string) (cron.Control, error)) (err error) {
	if _, err := s.jobLease(ctx, name, false); err != nil {
		return err
	}
	hold, err := s.client.Acquire(ctx, cron.ControlPrefix+name, lease.AcquireOptions{TTL: steerTTL})
	if err != nil {
		return err
	}
	defer func() {
		if released := hold.Release(ctx); err == nil && released != nil {
			s.config.Logger.Warn("a control document is changed, and not released before its lease runs out", "job", name, "error", released)
		}
	}()
	control, err := cron.ParseControl(hold.CheckpointData())
	if err != nil {
		return err
	}
	if control, err = change(control, hold.Holder().String()); err != nil {
		return err
	}
	if err := hold.Checkpoint(ctx, control.Encode()); err != nil {
		return fmt.Errorf("write the control document of %s: %w", name, err)
	}
	return nil
}

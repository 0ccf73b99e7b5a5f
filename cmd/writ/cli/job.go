package cli

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/singleton"
	"github.com/writ-io/writ/singleton/cron"
)

func (a *app) jobCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "job",
		Short: "Look at cron jobs that run in one place, and steer them",
		Long: `Look at cron jobs that run in one place, and steer them: what programs run with the SDK's Cron. The name of a job is that of
the resource whose holder runs it.

To see jobs takes the right to read them and what is under ` + cron.ControlPrefix + `; to steer them, to acquire under ` + cron.ControlPrefix + `.`,
	})
	cmd.AddCommand(a.jobListCommand(), a.jobGetCommand(), a.jobHistoryCommand(), a.jobPauseCommand(), a.jobResumeCommand(), a.jobTriggerCommand())
	return cmd
}

// withJobs does something with the jobs of a quorum.
func (a *app) withJobs(ctx context.Context, do func(context.Context, *singleton.Singleton) error) error {
	client, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }() // always nil
	jobs, err := singleton.New(client, singleton.Config{})
	if err != nil {
		return err
	}
	return do(ctx, jobs)
}

// askJobs is withJobs within the time of one request.
func (a *app) askJobs(ctx context.Context, do func(context.Context, *singleton.Singleton) error) error {
	return a.withJobs(ctx, func(ctx context.Context, jobs *singleton.Singleton) error {
		ctx, cancel := context.WithTimeout(ctx, a.timeout)
		defer cancel()
		return do(ctx, jobs)
	})
}

func (a *app) jobListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list [PREFIX]",
		Short: "List jobs",
		Long: `List jobs: what was ever run and is not forgotten. NEXT is in the zone of the job, without jitter; a job that nobody holds
runs no slot until somebody does.`,
		Args: arguments("[PREFIX]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.askJobs(cmd.Context(), func(ctx context.Context, jobs *singleton.Singleton) error {
				list, err := jobs.Jobs(ctx, strings.Join(args, ""))
				if err != nil {
					return err
				}
				views := make([]jobView, len(list))
				for i, job := range list {
					views[i] = viewJob(job)
					views[i].History = nil
				}
				return a.print(map[string]any{"jobs": views}, func(w io.Writer) { a.printJobs(w, list) })
			})
		},
	}
}

func (a *app) jobGetCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "get NAME",
		Short: "Look at one job: its spec, what runs, the next slots, and whether it is paused",
		Args:  arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.askJobs(cmd.Context(), func(ctx context.Context, jobs *singleton.Singleton) error {
				job, err := jobs.Job(ctx, args[0])
				if err != nil {
					return err
				}
				return a.print(viewJob(job), func(w io.Writer) { a.printJob(w, job) })
			})
		},
	}
}

func (a *app) jobHistoryCommand() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "history NAME",
		Short: "Show what became of the last slots of a job",
		Long: `Show what became of the last slots of a job, the oldest first: the last 20, in its zone, each with its outcome or the reason
why it was skipped. With --watch go on with every outcome to come.`,
		Args: arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if follow {
				return a.followJob(cmd.Context(), args[0])
			}
			return a.askJobs(cmd.Context(), func(ctx context.Context, jobs *singleton.Singleton) error {
				job, err := jobs.Job(ctx, args[0])
				if err != nil {
					return err
				}
				if job.Problem != nil {
					return job.Problem
				}
				return a.print(map[string]any{"history": viewRecords(job.State)}, func(w io.Writer) { a.printRecords(w, job.State) })
			})
		},
	}
	cmd.Flags().BoolVarP(&follow, "watch", "w", false, "go on, until Ctrl-C")
	return cmd
}

// followJob prints records as they are made. Every record begins after the one before it has, so that a slot and an
// outcome tell it from others.
func (a *app) followJob(ctx context.Context, name string) error {
	a, end := a.unhindered()
	defer end()
	told := make(map[recordKey]bool)
	return a.watchJob(ctx, name, func(job singleton.JobInfo) (bool, error) {
		if job.Problem != nil {
			return false, job.Problem
		}
		zone := zoneOf(job.State)
		for _, r := range job.State.History {
			key := keyOf(r)
			if told[key] {
				continue
			}
			told[key] = true
			if err := a.printNext(viewRecord(r, zone), recordLine(r, zone)); err != nil {
				return false, err
			}
		}
		return true, nil
	})
}

// watchJob shows a job each time it has changed, from its present state on, until seen wants no more or ctx ends.
func (a *app) watchJob(ctx context.Context, name string, seen func(singleton.JobInfo) (more bool, err error)) error {
	client, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }() // always nil
	jobs, err := singleton.New(client, singleton.Config{})
	if err != nil {
		return err
	}
	for event, err := range client.Watch(ctx, lease.WatchOptions{Prefix: name}) {
		if ctx.Err() != nil {
			return nil // somebody ended it
		}
		if err != nil {
			return err
		}
		// Synced: also where there is no such job.
		if event.Kind != lease.EventSynced && string(event.Info.Resource) != name || event.Kind == lease.EventState {
			continue
		}
		job, err := jobs.Job(ctx, name)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		if more, err := seen(job); err != nil || !more {
			return err
		}
	}
	return nil
}

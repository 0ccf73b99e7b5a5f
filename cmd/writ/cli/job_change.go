package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/singleton"
	"github.com/writ-io/writ/singleton/cron"
)

func (a *app) jobPauseCommand() *cobra.Command {
	var note string
	cmd := &cobra.Command{
		Use:   "pause NAME",
		Short: "Have the slots of a job skipped until it is resumed",
		Long:  `Have the slots of a job skipped until it is resumed. What runs goes on, and triggers run. The note tells others why.`,
		Args:  arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.steerJob(cmd.Context(), args[0], "paused", func(ctx context.Context, jobs *singleton.Singleton) error {
				return jobs.PauseJob(ctx, args[0], note)
			})
		},
	}
	cmd.Flags().StringVar(&note, "note", "", "why, for others to read")
	return cmd
}

func (a *app) jobResumeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "resume NAME",
		Short: "End a pause; slots that were skipped are not made up for",
		Args:  arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.steerJob(cmd.Context(), args[0], "resumed", func(ctx context.Context, jobs *singleton.Singleton) error {
				return jobs.ResumeJob(ctx, args[0])
			})
		},
	}
}

// steerJob changes a job and shows it as it is then.
func (a *app) steerJob(ctx context.Context, name, done string, change func(context.Context, *singleton.Singleton) error) error {
	return a.askJobs(ctx, func(ctx context.Context, jobs *singleton.Singleton) error {
		if err := change(ctx, jobs); err != nil {
			return err
		}
		job, err := jobs.Job(ctx, name)
		if err != nil {
			return err
		}
		return a.print(viewJob(job), func(w io.Writer) { _, _ = fmt.Fprintf(w, "%s %s\n", done, oneLine(name)) })
	})
}

func (a *app) jobTriggerCommand() *cobra.Command {
	var id string
	var wait bool
	cmd := &cobra.Command{
		Use:   "trigger NAME",
		Short: "Have a job run once, at once",
		Long: `Have a job run once, at once or after what runs now, whether or not it is paused. It prints the id of the run, under which the
history tells of it. A trigger that nobody could run for an hour lapses.

With --wait it waits for the outcome: the exit code is 0 if the run is done, 7 if the trigger lapsed, and 1 if the run failed.`,
		Args: arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			run := ""
			err := a.askJobs(cmd.Context(), func(ctx context.Context, jobs *singleton.Singleton) (err error) {
				run, err = jobs.TriggerJob(ctx, args[0], id)
				return err
			})
			switch {
			case err != nil:
				return err
			case wait:
				return a.awaitRun(cmd.Context(), args[0], run)
			}
			return a.print(map[string]string{"id": run}, func(w io.Writer) { _, _ = fmt.Fprintln(w, run) })
		},
	}
	cmd.Flags().StringVar(&id, "id", "", "makes it repeatable: the same `id` runs once (default: a new one)")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait for the outcome")
	return cmd
}

// awaitRun waits for the outcome of a run, and answers an error that says what became of one that is not done.
func (a *app) awaitRun(ctx context.Context, name, run string) error {
	a.say("triggered %s", run)
	var record *cron.Record
	err := a.watchJob(ctx, name, func(job singleton.JobInfo) (bool, error) {
		for _, r := range job.State.History {
			if r.ID == run {
				zone := zoneOf(job.State)
				record = &r
				return false, a.print(viewRecord(r, zone), func(w io.Writer) { _, _ = fmt.Fprintln(w, recordLine(r, zone)) })
			}
		}
		return true, job.Problem
	})
	switch {
	case err != nil:
		return err
	case record == nil: // ended by Ctrl-C
		return ctx.Err()
	case record.Outcome == cron.Done:
		return nil
	case record.Outcome == cron.Skipped:
		return &lease.Error{Reason: lease.ReasonExpired, Message: fmt.Sprintf("%s did not run: %s", run, oneLine(record.Reason))}
	}
	return fmt.Errorf("%s: %s", strings.TrimSpace(run+" "+string(record.Outcome)), oneLine(record.Reason))
}

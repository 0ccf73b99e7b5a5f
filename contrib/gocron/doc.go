// Package gocron lets schedulers of go-co-op/gocron v2 in several regions share their work through Writ.
//
// With an [Elector] one scheduler runs all jobs:
//
//	elector, err := gocron.NewElector(client, gocron.ElectorConfig{Resource: "reports/scheduler"})
//	...
//	scheduler, err := cron.NewScheduler(cron.WithDistributedElector(elector))
//	scheduler.NewJob(cron.CronJob("0 2 * * *", false), cron.NewTask(elector.Under(report)))
//	...
//	scheduler.Shutdown() // waits for jobs
//	elector.Close(ctx)   // hands over
//
// With a [Locker] each run is the business of whichever scheduler gets the lease of the job's name first:
//
//	locker, err := gocron.NewLocker(client, gocron.LockerConfig{Prefix: "reports/"})
//	...
//	scheduler, err := cron.NewScheduler(cron.WithDistributedLocker(locker))
//	scheduler.NewJob(cron.CronJob("0 2 * * *", false), cron.NewTask(locker.Under("nightly", report)), cron.WithName("nightly"))
//
// # What it promises
//
//   - IsLeader and Lock succeed only in the process that holds the Writ lease, which is renewed for as long as it leads, or the job runs.
//   - A function that is wrapped by Under gets a context that ends before another process can be granted the lease, and that
//     carries the grant (see fence.FromContext), so that guards and storage that compare tokens refuse what a paused process
//     writes when it wakes up.
//   - The lease is released only after functions under it have returned, with a context of its own. gocron unlocks with the
//     job's context, which may have ended.
//   - A lock is kept for at least [LockerConfig.MinHold], so that a scheduler whose clock is behind by less does not run the
//     job again.
//
// # What it does not promise
//
//   - gocron remembers nothing: a slot that came while nobody led is not made up for, and one that was cut short by a crash
//     is not run again. At a change of leaders a slot may run twice, if the clocks of both differ. singleton.Cron claims each
//     slot durably before it runs; use it where that matters.
//   - Jobs that are not wrapped by Under go on when the lease is lost: gocron does not tell them.
//
// # Clocks and failure
//
// Belief is counted on a clock that counts suspend, see package lease. When jobs are due, gocron says, by the time of day of
// each machine. Without a quorum Lock fails; an Elector leads on until its lease runs out.
package gocron

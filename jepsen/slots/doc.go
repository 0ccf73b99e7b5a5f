// Package slots holds cron jobs to what is promised of their effects in a database.
//
// Every run of a slot leaves two rows in the table of its job, each in a transaction of its own: one when it begins and one when
// it ends, which is the effect. A row takes its number from a counter that holds up every other row of the job until the
// transaction has ended, so that rows are numbered in the order in which they were committed.
//
// # What it promises
//
// [Check] finds, of every slot from the first to the last, whether it had one effect, within its window and a little; whether
// two runs were at it at a time; and whether anything was accepted under an older token after something under a newer one. It
// asks no clock and finds the same in the same rows.
//
// # What it does not promise
//
// It cannot tell how a job came to miss a slot. Times are those of the database's clock.
package slots

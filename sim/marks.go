package sim

import (
	"slices"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/region"
	"github.com/writ-io/writ/sim/plan"
)

// Mark is a situation that a sweep must have been in, for its silence to mean something.
type Mark uint8

// The marks. Those of operators and disks need many runs.
const (
	MarkTakeoverInFlight  Mark = iota // a coordinator took over while a commit of another was under way
	MarkTwoCoordinators               // two nodes believed that they decide
	MarkDeposedRound                  // the store refused a round of a term that was over
	MarkUnknownOutcome                // a client was told that the outcome of its request is unknown
	MarkReplayed                      // a request that had been granted was asked again, and got the same grant
	MarkLateDuplicate                 // a request that had ended was asked again, and was refused
	MarkHandOff                       // a waiter was served by the very commit that ended the grant before
	MarkExpiryInPartition             // a lease expired, and was granted anew, while the network was cut
	MarkLastMomentRenewal             // a renewal was answered in the last tenth of what its holder still believed
	MarkDeadlineLoss                  // a holder stopped believing because its deadline came
	MarkEndedLoss                     // a holder heard that its lease had ended
	MarkSuspicion                     // a holder's clock had missed time
	MarkZombieRefused                 // the storage refused a stale token
	MarkCheckpointPassed              // a holder was granted a lease with the checkpoint of the one before
	MarkCancelled                     // a wait was given up
	MarkCancelledGrant                // a wait was given up that had been granted meanwhile
	MarkContended                     // a holder heard that a higher priority waits
	MarkForced                        // an operator took a lease away
	MarkLockDelay                     // a resource stayed free for its lock delay
	MarkForwarded                     // a node carried a request on to the coordinator
	MarkWatchResumed                  // a watcher went on at another node
	MarkWatchResync                   // a watcher had to begin anew
	MarkLearnerPromoted               // a new member got its vote
	MarkMemberReplaced                // a member that had lost its disk was replaced
	MarkStartRefused                  // a node refused to start on a disk that is older than its witness
	MarkForeign                       // a coordinator found the state foreign
	MarkEpochRaised                   // a recovery ended in a new epoch
	MarkDiskFull                      // a node died of a full disk
	MarkTornWrite                     // a node died in the middle of a write
	MarkMoved                         // the coordinator was moved
	MarkTokensReserved                // a block of tokens was reserved beside ordinary rounds
	MarkHealed                        // everything was healed and made progress
	MarkGuardRefused                  // a guard refused a stale token
	MarkGuardParked                   // a write waited for its turn, and had it
	MarkGuardDraining                 // a floor was raised while older writes were under way
	MarkGuardCut                      // older writes were cut, and waited out
	MarkGuardDrainTimeout             // a write waited for older ones in vain
	MarkGuardLapsed                   // a grant rests on a guard lease that had run out
	MarkGuardReentered                // a guard that was out enrolled again
	MarkGuardRolledBack               // a guard enrolled whose floors had gone back
	MarkGuardFloorsLost               // a guard enrolled whose floors were lost
	MarkGuardMidRaise                 // a guard enrolled while a resource was being raised
	MarkGuardOpenAwaited              // a guard was out that may go on without contact, and was waited for
	MarkTakeoverMidRaise              // a coordinator took over while a resource was being raised
	MarkGuardIsolated                 // a guard without contact refused
	MarkGuardStoreFailed              // a guard could not write its floors down
	MarkGuardSuspicion                // a guard's clock had missed time
	MarkGuardAttested                 // an operator answered for a guard
	MarkGuardLeft                     // a guard left in order
	MarkGuardRules                    // a rule was opened or closed
	MarkGuardAlarm                    // the quorum named a token below a guard's floor
	MarkGuardUnproven                 // a grant was made although a guard had not been proved
	MarkGuardStamped                  // a guard gave a write the token of its region
	MarkStorageAwaited                // a guard was out whose storage compares tokens by itself, and was waited for
	MarkGuardClosesItself             // a guard refused without contact, as it is configured
	MarkGuardProbed                   // a canary came to a guard
	MarkGuardBare                     // a resource that guards cover was granted while no rule had it guarded
	MarkGuardLoose                    // a quorum was put back that does not wait for a guard which may go on without contact
	MarkForcedNow                     // an operator took a lease away without waiting for its end
	MarkLeadLoss                      // the context of a function ended before its lease did, for want of a renewal
	MarkStoppedInTime                 // a function returned before the lease that it had lost ran out
	MarkRanAgain                      // a function was run again after its lease was lost or handed over
	MarkHandedOver                    // a function was stopped for a preferred region
	MarkStuck                         // a function did not return in time, and its lease was left to run out
	MarkStuckExit                     // a process ended because of that
	MarkDeparted                      // a service ended in order
	MarkSlotAgain                     // a slot was run again whose holder had died, or was stopped
	MarkSlotCaughtUp                  // a slot was run late
	MarkSlotMissed                    // a slot was skipped because it was missed
	MarkSlotOverlap                   // a slot was skipped because another ran
	MarkSlotOvertaken                 // a run was cancelled for the next slot
	MarkSlotAbandoned                 // a slot whose holder died was given up
	MarkSlotFailed                    // a run failed
	MarkSlotPaused                    // a slot was skipped because the job is paused
	MarkSlotTriggered                 // a run was triggered
	MarkJobPaused                     // a job was paused
	MarkEffectAgain                   // the effect of a run came to the storage again
	MarkRevoked                       // a partition was wanted elsewhere
	MarkRevokeGrace                   // a function did not finish in time when its partition was revoked
	MarkMemberFailed                  // a member left its group because a function failed
	MarkThinned                       // members of a group went away, and the others had their partitions

	markCount
)

// markNames are what the marks are called in reports.
var markNames = [markCount]string{
	"takeover-with-commit-in-flight", "two-coordinators", "deposed-round", "unknown-outcome", "replayed-grant", "late-duplicate",
	"hand-off", "expiry-in-partition", "last-moment-renewal", "lost-by-deadline", "lost-by-answer", "clock-suspicion",
	"zombie-refused", "checkpoint-passed", "wait-cancelled", "grant-cancelled", "contended", "forced-release", "lock-delay",
	"forwarded", "watch-resumed", "watch-resync", "learner-promoted", "member-replaced", "start-refused", "foreign-state",
	"epoch-raised", "disk-full", "torn-write", "coordinator-moved", "tokens-reserved", "healed",
	"guard-refused", "guard-parked", "guard-raised-while-draining", "guard-cut", "guard-drain-timeout", "guard-lapsed",
	"guard-reentered", "guard-rolled-back", "guard-floors-lost", "guard-enrolled-mid-raise", "guard-open-awaited",
	"takeover-mid-raise", "guard-isolated", "guard-store-failed", "guard-suspicion", "guard-attested", "guard-left",
	"guard-rules-changed", "guard-alarm", "guard-unproven", "guard-stamped", "guard-storage-awaited", "guard-closes-itself", "guard-probed", "guard-bare", "guard-loose",
	"forced-now",
	"lost-with-lead", "stopped-in-time", "ran-again", "handed-over", "stuck", "stuck-exit", "departed", "slot-again", "slot-caught-up", "slot-missed",
	"slot-overlap", "slot-overtaken", "slot-abandoned", "slot-failed", "slot-paused", "slot-triggered", "job-paused", "effect-again",
	"partition-revoked", "partition-revoke-grace", "member-failed", "group-thinned",
}

func (m Mark) String() string { return markNames[m] }

// Marks lists the names of all marks.
func Marks() []string { return append([]string(nil), markNames[:]...) }

// Marks of what people do with promotions.
const (
	markSpent     = "operation-taken-back" // so many have taken their signatures back that the others are too few
	markPutOff    = "operation-put-off"    // what was signed in time was not executed before it had expired
	markOvertaken = "plan-overtaken"       // a signed plan was to be executed when the token had moved
	// people were asked to answer for a guard outside of promotions
	markAnsweredFor = "guard-answered-for"
)

// PromotionMarks lists the names of what runs with failover groups mark beside these: the states that a promotion was in, those
// in which a coordinator was lost, the transitions that were taken, and what people did. A sweep reaches them with drawn groups only.
func PromotionMarks() []string {
	var names []string
	for state := range writv1.PromotionState_name {
		if state != 0 {
			names = append(names, "promotion-"+stateOf(writv1.PromotionState(state)))
		}
	}
	for _, state := range plan.States {
		names = append(names, "coordinator-lost-in-"+state)
	}
	for _, t := range region.Transitions() {
		names = append(names, "transition-"+string(t.Name))
	}
	names = append(names, markSpent, markPutOff, markOvertaken, markAnsweredFor)
	slices.Sort(names)
	return names
}

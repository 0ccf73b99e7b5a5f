package sim

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
	MarkForcedNow                     // an operator took a lease away without waiting for its end

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
	"guard-rules-changed", "forced-now",
}

func (m Mark) String() string { return markNames[m] }

// Marks lists the names of all marks.
func Marks() []string { return append([]string(nil), markNames[:]...) }

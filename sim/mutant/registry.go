package mutant

import "slices"

// ID names a mutant.
type ID string

// Mutant is one planted bug.
type Mutant struct {
	ID ID
	// What is the bug in words.
	What string
	// Kills names the invariants of docs/INVARIANTS.md that are expected to catch it.
	Kills []string
	// Needs is what has to happen for the bug to show.
	Needs string
	// Scenario is that of package sim which brings it about; empty: drawn plans do. [Guarded] stands for drawn plans that all
	// have guards.
	Scenario string
	// Test kills it where the simulator cannot bring it about: a package and the name of a test in it, which takes the flag
	// -mutant.
	Test string
}

// Find answers the mutant of that name.
func Find(id ID) (Mutant, bool) {
	i := slices.IndexFunc(Registry, func(m Mutant) bool { return m.ID == id })
	if i < 0 {
		return Mutant{}, false
	}
	return Registry[i], true
}

// Of the holder: lease.Keeper and lease/clock.
const (
	ValidityFromReply ID = "ValidityFromReply"
	NoDriftMargin     ID = "NoDriftMargin"
	WorkContinues     ID = "WorkContinues"
	FreezeUnnoticed   ID = "FreezeUnnoticed"
)

// Of the coordinator: quorum.Engine, and the image that it loads.
const (
	WallClock             ID = "WallClock"
	RenewalWithoutConfirm ID = "RenewalWithoutConfirm"
	RefusalWithoutConfirm ID = "RefusalWithoutConfirm"
	LateToTheConfirm      ID = "LateToTheConfirm"
	AnswerBeforeCommit    ID = "AnswerBeforeCommit"
	CeilingNotCommitted   ID = "CeilingNotCommitted"
	UnknownTakenAsFailure ID = "UnknownTakenAsFailure"
	ForeignUnnoticed      ID = "ForeignUnnoticed"
	EpochFromBackup       ID = "EpochFromBackup"
	RecoveryWithoutWait   ID = "RecoveryWithoutWait"
	AuditHeadLost         ID = "AuditHeadLost"
	KeptTableAfterDeposed ID = "KeptTableAfterDeposed"
	LoadBeforeClaim       ID = "LoadBeforeClaim"
)

// Of the table: lease.Table.
const (
	ExpiryAtTakeover       ID = "ExpiryAtTakeover"
	ReplayWithoutExtending ID = "ReplayWithoutExtending"
	RenewalRevives         ID = "RenewalRevives"
	ReleaseWithoutToken    ID = "ReleaseWithoutToken"
	CheckpointWithoutToken ID = "CheckpointWithoutToken"
	CheckpointOvertakes    ID = "CheckpointOvertakes"
	OutcomesForgotten      ID = "OutcomesForgotten"
	PollKeepsOldIntake     ID = "PollKeepsOldIntake"
	TokenResetAfterDelete  ID = "TokenResetAfterDelete"
	EarlyExpiry            ID = "EarlyExpiry"
)

// Of the table, where guards are concerned.
const (
	GrantBeforeProof        ID = "GrantBeforeProof"
	OpenGuardLapses         ID = "OpenGuardLapses"
	StorageGuardLapses      ID = "StorageGuardLapses"
	StorageGuardLeaves      ID = "StorageGuardLeaves"
	GuardLapsesEarly        ID = "GuardLapsesEarly"
	SecondStoreEnrols       ID = "SecondStoreEnrols"
	GuardNotSeeded          ID = "GuardNotSeeded"
	ContactWithoutExtending ID = "ContactWithoutExtending"
	AckOfOlderFloor         ID = "AckOfOlderFloor"
	ClosedBeforeHeard       ID = "ClosedBeforeHeard"
	LapseWithoutSlack       ID = "LapseWithoutSlack"
	GuardLapsesAtTakeover   ID = "GuardLapsesAtTakeover"
	TenureAttestedByOne     ID = "TenureAttestedByOne"
	FirstTenureUnfenced     ID = "FirstTenureUnfenced"
)

// Of the guard: gate.Gate.
const (
	FloorInMemory         ID = "FloorInMemory"
	AckBeforeFsync        ID = "AckBeforeFsync"
	AckBeforeDrain        ID = "AckBeforeDrain"
	AdmitBeforeFsync      ID = "AdmitBeforeFsync"
	AdmitBeforeDrain      ID = "AdmitBeforeDrain"
	OneOlderAdmitted      ID = "OneOlderAdmitted"
	FloorOfAnother        ID = "FloorOfAnother"
	DrainTimeoutAdmits    ID = "DrainTimeoutAdmits"
	OpenWhenIsolated      ID = "OpenWhenIsolated"
	OwnCloseIgnored       ID = "OwnCloseIgnored"
	ContactFromReply      ID = "ContactFromReply"
	AdmitUnseeded         ID = "AdmitUnseeded"
	SeededBeforePersisted ID = "SeededBeforePersisted"
	SeedBaseIgnored       ID = "SeedBaseIgnored"
	LateNewsAlarms        ID = "LateNewsAlarms"
	NoGhostAfterRestart   ID = "NoGhostAfterRestart"
	BrokenTakenAsFinished ID = "BrokenTakenAsFinished"
	NotSevered            ID = "NotSevered"
	SuspicionIgnored      ID = "SuspicionIgnored"

	CancelledWithItsCaller ID = "CancelledWithItsCaller"

	BreakglassWhileInContact   ID = "BreakglassWhileInContact"
	BreakglassKeptAfterContact ID = "BreakglassKeptAfterContact"
	BreakglassAfterExpiry      ID = "BreakglassAfterExpiry"
)

// Of promotions: region.Machine.
const (
	PromotionWithoutTokenCompare ID = "PromotionWithoutTokenCompare"
	ExecutedTwiceAfterUnknown    ID = "ExecutedTwiceAfterUnknown"
	GrantBeforeFenced            ID = "GrantBeforeFenced"
)

// Guarded is the suite of drawn plans that all have guards.
const Guarded = "guarded"

// Grouped is the suite of drawn plans that all have guards and, with two regions, a failover group.
const Grouped = "grouped"

// Of approvals: region/approval, and the operations of region.Machine.
const (
	OnePersonTwice         ID = "OnePersonTwice"
	RequesterAlone         ID = "RequesterAlone"
	DigestWithoutArguments ID = "DigestWithoutArguments"
	ExpiryAtApprovalOnly   ID = "ExpiryAtApprovalOnly"
	ExecutedTwice          ID = "ExecutedTwice"
)

// Of what runs in one place: singleton.Runner, cron.Machine and partition.Machine.
const (
	LossIgnored        ID = "LossIgnored"
	OldTermRuns        ID = "OldTermRuns"
	StuckReleased      ID = "StuckReleased"
	ReleasedAtCancel   ID = "ReleasedAtCancel"
	ClaimedAfterRun    ID = "ClaimedAfterRun"
	MissedForgotten    ID = "MissedForgotten"
	DeadClaimForgotten ID = "DeadClaimForgotten"
	WindowIgnored      ID = "WindowIgnored"
	GraceForgotten     ID = "GraceForgotten"
	LostIsKept         ID = "LostIsKept"
	HoldersForgotten   ID = "HoldersForgotten"
)

// Singletons is the suite of drawn plans that all have services which do in one place what is to be done in one place.
const Singletons = "singletons"

// Of watches: what quorum tells.
const (
	WatchSkipsAfterResume ID = "WatchSkipsAfterResume"
	WatchRepeats          ID = "WatchRepeats"
	CompactionIgnored     ID = "CompactionIgnored"
)

// Registry lists every mutant.
var Registry = []Mutant{
	{
		ID: ValidityFromReply, Kills: []string{"S4"},
		What:  "A holder counts validity from when the answer came, not from before the request was sent.",
		Needs: "slow answers to an acquire or a renewal, after which the holder reaches nobody, and somebody who waits",
	},
	{
		ID: NoDriftMargin, Kills: []string{"S4"}, Scenario: "drift",
		What:  "A holder believes for the whole TTL, and takes nothing off for drift.",
		Needs: "a coordinator's clock that runs fast beside a holder's that runs slow, short delays, a holder that reaches nobody, and somebody who waits",
	},
	{
		ID: WorkContinues, Kills: []string{"S4", "S7"},
		What:  "A lease whose deadline passed, or that the server ended, is not reported lost and is believed on.",
		Needs: "a holder that reaches nobody for a TTL, and somebody who waits",
	},
	{
		ID: FreezeUnnoticed, Kills: []string{"S4"}, Scenario: "frozen-holder",
		What:  "A jump between the clock and the time of day raises no suspicion.",
		Needs: "a holder whose clock misses more than a TTL while its time of day does not, and somebody who waits",
	},
	{
		ID: WallClock, Kills: []string{"S4"},
		What:  "The coordinator counts deadlines by wall time.",
		Needs: "a coordinator whose wall time is set ahead while leases are held, a holder that does not renew at once, and somebody who waits",
	},
	{
		ID: RenewalWithoutConfirm, Kills: []string{"S4", "S9"},
		What:  "The answers of a round that changed nothing leave before a confirm has shown that the term is still the newest.",
		Needs: "a deposed coordinator that still reaches a holder, and a successor with somebody who waits",
	},
	{
		ID: RefusalWithoutConfirm, Kills: []string{"S9"}, Scenario: "idle-coordinator-paused",
		What:  "The answers of a round in which everything was refused leave before a confirm.",
		Needs: "a deposed coordinator that still reaches clients, for whom a successor has changed who holds",
	},
	{
		ID: LateToTheConfirm, Kills: []string{"S4", "S9"}, Scenario: "late-to-the-confirm",
		What:  "Renewals and inspections that arrive while a confirm is under way are answered by it, though it may have read before they were sent.",
		Needs: "a confirm whose answer is long under way, a successor that claims meanwhile and changes who holds, and calls to the deposed coordinator",
	},
	{
		ID: AnswerBeforeCommit, Kills: []string{"S9", "D1", "S1", "S4"},
		What:  "The answers of a round leave before its commit is done.",
		Needs: "a coordinator that loses its majority or crashes during a commit",
	},
	{
		ID: CeilingNotCommitted, Kills: []string{"S1"},
		What:  "A further block of tokens is used without having been committed and witnessed, so that a successor hands the same tokens out.",
		Needs: "small token blocks, more grants than a block within one term, then a takeover and grants; of one resource a table notices itself and panics, unless its record was forgotten",
	},
	{
		ID: UnknownTakenAsFailure, Kills: []string{"S9"},
		What:  "A commit whose outcome is not known is answered as if nothing had been changed.",
		Needs: "a commit that succeeds while its answer is lost",
	},
	{
		ID: ForeignUnnoticed, Kills: []string{"S1", "L1"},
		What:  "A state that witnesses or the membership contradict is taken for this history's.",
		Needs: "a quorum restored from a backup, or put back together with its logs, after more tokens were handed out; the witnesses of the nodes then refuse the ceiling, and nothing is granted",
	},
	{
		ID: EpochFromBackup, Kills: []string{"L1", "S1"}, Scenario: "restored-twice",
		What:  "A recovery raises the epoch above the state's own, not above what witnesses remember.",
		Needs: "a quorum restored twice from one backup; members that do not witness an epoch that they remember of another incarnation hold the recovery up for good",
	},
	{
		ID: RecoveryWithoutWait, Kills: []string{"S4"},
		What:  "Grants resume as soon as every member has witnessed the new epoch, while leases of before may still be believed.",
		Needs: "a restore that takes less than a TTL, holders of before that reach nobody, and somebody who asks for the same resources",
	},
	{
		ID: AuditHeadLost, Kills: []string{"M1"},
		What:  "An audit record is committed without the head of the chain.",
		Needs: "a forced release, then a takeover before the identity record is written for another reason, then another forced release",
	},
	{
		ID: KeptTableAfterDeposed, Kills: []string{"L1"}, Scenario: "leadership-flaps",
		What:  "A coordinator that is told that it was deposed refuses that round and goes on with its table under the same term.",
		Needs: "a term that another node claims while this one stays the leader or becomes it again unnoticed",
	},
	{
		ID: LoadBeforeClaim, Kills: []string{"S1", "S9", "D1"},
		What:  "A new coordinator takes its view over before that has what was committed before the claim.",
		Needs: "a takeover by a node whose view lags behind",
	},
	{
		ID: ExpiryAtTakeover, Kills: []string{"S4"}, Scenario: "takeover-after-renewal",
		What:  "A new coordinator gives leases half of their TTL.",
		Needs: "a takeover shortly after a renewal, a holder that reaches nobody then, and somebody who waits",
	},
	{
		ID: ReplayWithoutExtending, Kills: []string{"S4"}, Scenario: "lost-answer-then-cut",
		What:  "A repeated acquire is answered with the grant, but does not extend its deadline.",
		Needs: "an acquire whose first answer is lost, a repetition much later, a holder that reaches nobody then, and somebody who waits",
	},
	{
		ID: RenewalRevives, Kills: []string{"S1", "S9"}, Scenario: "stale-renewal",
		What:  "A renewal of a grant that has expired holds the resource again under the same token, if it is free.",
		Needs: "a renewal that is under way beyond the expiry, or a client that asks for one, and somebody who looks at the resource in between",
	},
	{
		ID: ReleaseWithoutToken, Kills: []string{"S5", "S4", "S9"},
		What:  "A release ends whatever grant the resource has now.",
		Needs: "a release that arrives when another grant has been made",
	},
	{
		ID: CheckpointWithoutToken, Kills: []string{"S5", "S9"},
		What:  "A checkpoint is taken from whoever sends it.",
		Needs: "a checkpoint that arrives when another grant has been made",
	},
	{
		ID: CheckpointOvertakes, Kills: []string{"D1"},
		What:  "A checkpoint that comes late is stored over a newer one of the same grant.",
		Needs: "an attempt to store a checkpoint that arrives a second time, or late, after the holder has stored another",
	},
	{
		ID: OutcomesForgotten, Kills: []string{"S9"},
		What:  "A late duplicate of a request whose grant has ended is granted anew.",
		Needs: "a duplicate of an acquire that arrives after the release, while the resource is free",
	},
	{
		ID: PollKeepsOldIntake, Kills: []string{"S4", "L1"},
		What:  "A waiter that polls again keeps its first intake, so that its grant ends before the holder thinks.",
		Needs: "a hand-off to somebody who has polled more than once, who reaches nobody then, and somebody else who waits; one who waits longer is never served",
	},
	{
		ID: TokenResetAfterDelete, Kills: []string{"S1"}, Scenario: "forgotten",
		What:  "The first grant of a resource that has no record gets the first token of the epoch.",
		Needs: "a resource whose record is forgotten after its retention and that is granted again",
	},
	{
		ID: EarlyExpiry, Kills: []string{"S4"}, Scenario: "drift",
		What:  "A lease expires when nine tenths of its TTL have passed.",
		Needs: "a holder that reaches nobody after a grant or a renewal, and somebody who waits",
	},
	{
		ID: GrantBeforeProof, Kills: []string{"S2", "S3"}, Scenario: Guarded,
		What:  "A guarded resource is granted while guards are still being raised.",
		Needs: "a guard that is cut off, or drains, and goes on admitting the token of before",
	},
	{
		ID: OpenGuardLapses, Kills: []string{"S2", "S3"}, Scenario: Guarded,
		What:  "A guard that may go on without contact is taken for out when its guard lease has run out.",
		Needs: "a rule that is open, a guard cut off from the quorum but not from a client, and a grant meanwhile",
	},
	{
		ID: StorageGuardLapses, Kills: []string{"S2", "S3"}, Scenario: "guard-storage",
		What:  "The guard of a storage that compares tokens by itself is taken for out when its guard lease has run out.",
		Needs: "such a guard cut off from the quorum, a client that writes on under its old token, and a grant meanwhile",
	},
	{
		ID: StorageGuardLeaves, Kills: []string{"S2", "S3"}, Scenario: "guard-storage",
		What:  "The guard of a storage that compares tokens by itself is taken for one that admits nothing when it has left.",
		Needs: "such a guard that is stopped, a client that writes on under its old token, and a grant meanwhile",
	},
	{
		ID: GuardLapsesEarly, Kills: []string{"S2", "S3"}, Scenario: Guarded,
		What:  "A guard is taken for out when half of its guard lease has run out.",
		Needs: "a guard cut off from the quorum but not from a client, and a grant meanwhile",
	},
	{
		ID: SecondStoreEnrols, Kills: []string{"S2", "S3"}, Scenario: "guard-twin",
		What:  "A second process, with other floors, is let in under a guard's name while the first may be admitting.",
		Needs: "two guards that are configured under one name, and the first one cut off from the quorum but not from a client",
	},
	{
		ID: GuardNotSeeded, Kills: []string{"S2", "D2"}, Scenario: Guarded,
		What:  "A guard enrols without being told the floors of what is held or being raised.",
		Needs: "a guard that enrols with old floors or none, and a stale writer",
	},
	{
		ID: ContactWithoutExtending, Kills: []string{"S2", "S3"}, Scenario: Guarded,
		What:  "A contact is answered with the guard lease, but the coordinator does not extend what it waits for.",
		Needs: "a guard that has been in contact for a guard lease, and is slow to acknowledge",
	},
	{
		ID: AckOfOlderFloor, Kills: []string{"S2", "S3"}, Scenario: Guarded,
		What:  "An acknowledgement of an older floor counts as one of the newest.",
		Needs: "an acknowledgement that is long on its way, or a guard that drains while it is raised again",
	},
	{
		ID: ClosedBeforeHeard, Kills: []string{"S2", "S3"}, Scenario: "guard-closed-unheard",
		What:  "A guard is taken to close from when a rule was closed, not from when it has heard of that.",
		Needs: "a rule that is closed while a guard is cut off from the quorum but not from a client",
	},
	{
		ID: LapseWithoutSlack, Kills: []string{"S2", "S3"}, Scenario: "guards-cut-off",
		What:  "A guard is taken for out when its guard lease has run out, without W on top.",
		Needs: "a guard that is cut off, and a write that it has let through in the last moment",
	},
	{
		ID: GuardLapsesAtTakeover, Kills: []string{"S2", "S3"}, Scenario: Guarded,
		What:  "A new coordinator gives guards no guard lease of their own.",
		Needs: "a takeover while a guard is cut off from the quorum but not from a client, and a grant",
	},
	{
		ID: TenureAttestedByOne, Kills: []string{"S8"}, Scenario: "promotion-guard-gone",
		What:  "One person's word is enough for a guard that the tenure of a failover group relies on.",
		Needs: "such a guard that is gone, has not been heard to know the tenure's rule, and whose successor waits",
	},
	{
		ID: FloorInMemory, Kills: []string{"D2"}, Scenario: Guarded,
		What:  "Floors are not written into the batch.",
		Needs: "a raise, or a newer token",
	},
	{
		ID: AckBeforeFsync, Kills: []string{"D2"}, Scenario: Guarded,
		What:  "A raise is acknowledged before its floor is durable.",
		Needs: "a raise",
	},
	{
		ID: AckBeforeDrain, Kills: []string{"S2"}, Scenario: Guarded,
		What:  "A raise is acknowledged while older writes are under way.",
		Needs: "a raise while a slow write is under way",
	},
	{
		ID: AdmitBeforeFsync, Kills: []string{"D2"}, Scenario: Guarded,
		What:  "A write under a newer token is admitted before the floor is durable.",
		Needs: "a newer token that a client brings before the quorum does: one that was made up on a trusted route, as guards are raised before a grant",
	},
	{
		ID: AdmitBeforeDrain, Kills: []string{"S2"}, Scenario: Guarded,
		What:  "A write under a newer token is admitted while older ones are under way.",
		Needs: "a newer token that a client brings before the quorum does, while an older write is under way",
	},
	{
		ID: OneOlderAdmitted, Kills: []string{"S2", "S3"}, Scenario: Guarded,
		What:  "A write under the token right below the floor is admitted.",
		Needs: "two grants under neighbouring tokens, and a stale writer",
	},
	{
		ID: FloorOfAnother, Kills: []string{"S2", "S3"}, Scenario: Guarded,
		What:  "A write is held to the floor that resources have for want of their own.",
		Needs: "a stale writer",
	},
	{
		ID: DrainTimeoutAdmits, Kills: []string{"S2"}, Scenario: Guarded,
		What:  "A write that has waited long enough for older ones is admitted.",
		Needs: "older writes that take longer than writes are parked",
	},
	{
		ID: OpenWhenIsolated, Kills: []string{"S2", "S3"}, Scenario: Guarded,
		What:  "A guard without contact goes on admitting under a rule that closes.",
		Needs: "a guard cut off from the quorum but not from a client for longer than the guard lease, and a grant",
	},
	{
		ID: OwnCloseIgnored, Kills: []string{"S2", "S3"}, Scenario: "guard-closes-itself",
		What:  "A guard that is configured to close goes on without contact where the rules let it.",
		Needs: "a quorum that was put back to when it did not know the guard, which is cut off from it but not from a client",
	},
	{
		ID: ContactFromReply, Kills: []string{"S2", "S3"}, Scenario: "guard-slow-contact",
		What:  "The guard lease counts from when the answer came, not from before the contact was sent.",
		Needs: "a slow answer to a contact, after which the guard reaches nobody but a stale writer",
	},
	{
		ID: AdmitUnseeded, Kills: []string{"D2", "S2"}, Scenario: Guarded,
		What:  "A guard that has just started admits by the floors on its disk.",
		Needs: "a guard that starts, and a writer that comes before the quorum's answer",
	},
	{
		ID: SeededBeforePersisted, Kills: []string{"D2"}, Scenario: "guard-slow-start",
		What:  "A guard admits as soon as it has heard its seed.",
		Needs: "a guard that starts, and a writer that comes before the seed is on disk",
	},
	{
		ID: SeedBaseIgnored, Kills: []string{"D2"}, Scenario: Guarded,
		What:  "What the seed says of resources that it does not name is not applied.",
		Needs: "a guard that starts, and writes",
	},
	{
		ID: LateNewsAlarms, Kills: []string{"D2"}, Scenario: Guarded,
		What:  "A floor below its own, which a node tells unasked, is an alarm to a guard, and not a question.",
		Needs: "a node that is behind what the coordinator answered by way of it",
	},
	{
		ID: NoGhostAfterRestart, Kills: []string{"S2"}, Scenario: Guarded,
		What:  "A guard that starts again takes it that nothing of its last life is under way.",
		Needs: "a crash while a write is on its way, a quick start, and a raise",
	},
	{
		ID: BrokenTakenAsFinished, Kills: []string{"S2"}, Scenario: Guarded,
		What:  "A write that was broken off is not waited out.",
		Needs: "a raise while a slow write is under way, which is cut, and carried out a little later",
	},
	{
		ID: NotSevered, Kills: []string{"S2", "S3"}, Scenario: "guards-cut-off",
		What:  "What is under way when the guard lease runs out is not broken off.",
		Needs: "a guard that is cut off while a slow write is under way, and a grant",
	},
	{
		ID: SuspicionIgnored, Kills: []string{"S2", "S3"}, Scenario: Guarded,
		What:  "A guard whose clock has missed time goes on believing what it was told before.",
		Needs: "a guard that is frozen for longer than the guard lease, and a stale writer right after",
	},
	{
		ID: WatchSkipsAfterResume, Kills: []string{"S10"},
		What:  "A watch goes on one revision too far.",
		Needs: "a watch that is resumed, or that has told the present state, right before a change",
	},
	{
		ID: WatchRepeats, Kills: []string{"S10"},
		What:  "A watch goes on with the change that was told last.",
		Needs: "a watch that is resumed",
	},
	{
		ID: CompactionIgnored, Kills: []string{"S10"},
		What:  "A watch that cannot go on from where it was goes on with the newest revision, without RESYNC and the present state.",
		Needs: "a watch that is resumed behind a compaction, or in another incarnation, after changes that it was not told",
	},
	{
		ID: CancelledWithItsCaller, Kills: []string{"S2"}, Test: "./fence/guard/proxy TestCallerLeavesAndTheUpstreamHangs",
		What:  "A proxy cancels the write at the upstream when its caller hangs up, and counts it as finished.",
		Needs: "a caller that leaves before the upstream has answered",
	},
	{
		ID: BreakglassWhileInContact, Kills: []string{"S6"}, Test: "./fence/gate TestCertificatesOpenNothingElse",
		What:  "A guard takes a certificate of break-glass though it has contact with a quorum, or had a moment ago.",
		Needs: "a certificate that is applied before the guard lease, and W, have run out",
	},
	{
		ID: BreakglassKeptAfterContact, Kills: []string{"S6"}, Test: "./fence/gate TestCertificatesOpenNothingElse",
		What:  "A guard that a certificate has opened goes on under it when it meets a live quorum.",
		Needs: "contact before the certificate has expired",
	},
	{
		ID: BreakglassAfterExpiry, Kills: []string{"S6"}, Test: "./fence/gate TestCertificatesOpenNothingElse",
		What:  "A guard goes on under a certificate that has expired.",
		Needs: "a write after the expiry, without contact",
	},
	{
		ID: PromotionWithoutTokenCompare, Kills: []string{"S6"}, Scenario: Grouped,
		What:  "A promotion is executed without a compare on the token that its plan expects.",
		Needs: "a plan that waits while the group's token moves",
	},
	{
		ID: ExecutedTwiceAfterUnknown, Kills: []string{"S8"}, Scenario: Grouped,
		What:  "A promotion that has ended is begun again when its execution is asked for again.",
		Needs: "an execution whose answer is lost, and which is asked for again",
	},
	{
		ID: FirstTenureUnfenced, Kills: []string{"S6"}, Test: "./region TestPeopleAnswerForAGuardBeforeTheFirstTenure",
		What:  "The first tenure of a group waits for no guard: both regions are writable at a cold start.",
		Needs: "a group that is founded while a guard has not been proved",
	},
	{
		ID: GrantBeforeFenced, Kills: []string{"S6"}, Scenario: Grouped,
		What:  "The target is primary, and its hooks run, before every guard has been proved.",
		Needs: "a guard that is cut off while a promotion is fencing",
	},
	{
		ID: OnePersonTwice, Kills: []string{"S8"}, Scenario: Grouped,
		What:  "Two signatures of one person under two keys count as those of two people.",
		Needs: "an approver with two keys who signs with both",
	},
	{
		ID: RequesterAlone, Kills: []string{"S8"}, Scenario: Grouped,
		What:  "Whoever asked for an operation is enough to approve it.",
		Needs: "a requester who is an approver, and signs before anybody else has",
	},
	{
		ID: DigestWithoutArguments, Kills: []string{"S8"}, Scenario: Grouped,
		What:  "What people sign says which operation it is, and not what it does.",
		Needs: "a signature that is checked against what is done",
	},
	{
		ID: ExpiryAtApprovalOnly, Kills: []string{"S8"}, Scenario: Grouped,
		What:  "An operation that expired after the last signature is executed all the same.",
		Needs: "enough signatures in time, and an execution after that",
	},
	{
		ID: ExecutedTwice, Kills: []string{"S8"}, Scenario: Grouped,
		What:  "An operation that has been executed is executed again when it is asked for again.",
		Needs: "somebody who asks again because the answer was lost",
	},
	{
		ID: LossIgnored, Kills: []string{"S7"}, Scenario: Singletons,
		What:  "A runner does not act on the loss of its lease, and so waits for ever for a function that ignores the end of its context.",
		Needs: "a holder that reaches nobody for a TTL, and a function that does not return",
	},
	{
		ID: OldTermRuns, Kills: []string{"S7"}, Scenario: Singletons,
		What:  "A runner whose lease is lost asks for the next one at once, so that the function of the old term goes on, and is heard of, in the new one.",
		Needs: "a lost lease, and a function that takes a while to return",
	},
	{
		ID: StuckReleased, Kills: []string{"S7"}, Scenario: Singletons,
		What:  "The lease of a function that does not return is released when its grace is over.",
		Needs: "a function that is told to stop while its lease is held, and does not return",
	},
	{
		ID: ReleasedAtCancel, Kills: []string{"S7"}, Scenario: Singletons,
		What:  "A lease is released when the context of its function ends, before the function has returned, so that the next holder begins beside it.",
		Needs: "a function that takes a while to return, which is told to stop for a preferred region, or to hand its partition over",
	},
	{
		ID: ClaimedAfterRun, Kills: []string{"J1"}, Scenario: Singletons,
		What:  "A slot runs before its claim is stored.",
		Needs: "a slot",
	},
	{
		ID: MissedForgotten, Kills: []string{"J1"}, Scenario: Singletons,
		What:  "A new holder goes on from the present time, and says nothing of the slots since the last one.",
		Needs: "a slot that falls due while nobody holds the job",
	},
	{
		ID: DeadClaimForgotten, Kills: []string{"J1"}, Scenario: Singletons,
		What:  "A new holder drops the slot that was claimed by one who died.",
		Needs: "a holder that dies, or loses its lease, while a slot runs",
	},
	{
		ID: WindowIgnored, Kills: []string{"J1"}, Scenario: Singletons,
		What:  "What was missed is skipped although it is within the window.",
		Needs: "slots that fall due while nobody holds the job",
	},
	{
		ID: GraceForgotten, Kills: []string{"L1"}, Scenario: Singletons,
		What:  "A function whose partition is wanted elsewhere may take as long as it likes to finish.",
		Needs: "a member that joins, and a function that returns only when its context has ended",
	},
	{
		ID: LostIsKept, Kills: []string{"L1"}, Scenario: Singletons,
		What:  "A member takes a partition whose lease it has lost for its own still.",
		Needs: "a member that loses its leases and comes back",
	},
	{
		ID: HoldersForgotten, Kills: []string{"P1", "L1"}, Scenario: Singletons,
		What:  "Who holds what does not matter for who should.",
		Needs: "a group of which a member goes away",
	},
}

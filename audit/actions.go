package audit

import "strings"

// The actions that this package understands. Others are kept and shown as they are.
const (
	ActionGrant           = "grant"
	ActionEnd             = "end"
	ActionTenureGrant     = "tenure.grant"
	ActionTenureFence     = "tenure.fence"
	ActionTenureEnd       = "tenure.end"
	ActionForceRelease    = "lease.force-release"
	ActionGuardRule       = "guard.rule"
	ActionForeignState    = "quorum.foreign-state"
	ActionRaiseEpoch      = "quorum.raise-epoch"
	ActionRecovered       = "quorum.recovered"
	ActionPropose         = "operation.propose"
	ActionApprove         = "operation.approve"
	ActionWithdraw        = "operation.withdraw"
	ActionExecute         = "operation.execute"
	ActionExpire          = "operation.expire"
	ActionCancel          = "operation.cancel"
	ActionVoid            = "operation.void"
	ActionApproversChange = "approvers.change"
	ActionGroupApply      = "group.apply"
	ActionGroupRemove     = "group.remove"
	ActionGroupRemoved    = "group.removed"
	ActionPrune           = "audit.prune"
)

// The names of what their details say. Tokens are decimal.
const (
	detailToken     = "token"
	detailOldToken  = "old_token"
	detailHolder    = "holder"
	detailRegion    = "region"
	detailProofs    = "proofs" // "guard=how", separated by spaces
	detailPromotion = "promotion"
	detailHow       = "how"
	detailDocument  = "document"
	detailDigest    = "digest"
	detailRule      = "rule" // as protobuf JSON
	detailApprover  = "approver"
	detailKey       = "key"
	detailKind      = "kind"
	detailGroup     = "group"
	detailOperation = "operation"
	detailSignature = "signature"
	detailSet       = "set"  // as protobuf JSON
	detailSpec      = "spec" // as protobuf JSON
	detailAutomatic = "automatic"
)

// ends says whether nothing can be approved about an operation any more after that action.
func ends(action string) bool {
	switch action {
	case ActionExecute, ActionExpire, ActionCancel, ActionVoid:
		return true
	}
	return false
}

// covers says whether a rule for a prefix is about a resource.
func covers(prefix, resource string) bool { return strings.HasPrefix(resource, prefix) }

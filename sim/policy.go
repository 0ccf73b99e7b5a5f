package sim

import "github.com/writ-io/writ/lease"

// policy is that of every node.
func (r *run) policy() lease.Policy {
	return lease.Policy{Rules: []lease.PolicyRule{{MaxTTL: r.plan.MaxTTL, LockDelay: r.plan.LockDelay}}}
}

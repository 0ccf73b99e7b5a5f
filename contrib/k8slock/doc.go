// Package k8slock lets controllers of several Kubernetes clusters elect one leader through Writ, with client-go's own
// leader election loop.
//
//	lock, err := k8slock.New(client, k8slock.Config{Resource: "controllers/dns", Identity: podName})
//	...
//	err = k8slock.Run(ctx, lock, leaderelection.LeaderElectionConfig{
//		LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second,
//		Callbacks: leaderelection.LeaderCallbacks{OnStartedLeading: reconcile, OnStoppedLeading: exit},
//	})
//
// A program that runs the loop itself, as controller-runtime's manager does, passes the [Lock] to it and starts it under
// the context of [Lock.Bind]:
//
//	bound, unbind := lock.Bind(ctx)
//	defer unbind()
//	err = manager.Start(bound) // Options.LeaderElectionResourceLockInterface is lock
//
// # What it promises
//
//   - The lock is taken, and kept, only while this process holds the Writ lease. Create and Update ask the quorum. What the
//     loop computes from times of day and records decides nothing.
//   - A leadership is one grant under one token. When the lease is lost, the lock refuses everything until the loop has said
//     that it stopped leading, so that no loop goes on leading under another grant than it began with.
//   - The contexts of [Run] and [Lock.Bind] end before another process can be granted the lease, by this machine's clock and
//     with no help from the network.
//   - [Run] releases the lease only after OnStartedLeading has returned, whether ReleaseOnCancel is set or not.
//   - OnStartedLeading gets a context that carries the grant, see fence.FromContext.
//
// # What it does not promise
//
//   - Without [Run] or [Lock.Bind] a leader learns of a lost lease by its next renewal that fails, and client-go then lets it
//     lead for up to RenewDeadline more. Choose a TTL longer than RenewDeadline + 2·RetryPeriod then.
//   - With ReleaseOnCancel and without [Run], client-go releases when its context ends, perhaps before the work has stopped.
//   - A process can be paused between looking and writing. Only storage or a guard that compares tokens stops what it writes
//     when it wakes up; the API servers of Kubernetes do not.
//   - The experimental coordinated leader election (Coordinated) is not supported: Writ decides who leads.
//
// # Clocks and failure
//
// Belief is counted on a clock that counts suspend, see package lease. The times in the records are for people. Without a
// quorum nobody begins to lead, and who leads stops when it could not renew. A candidate finds out that the lease is free
// when it looks next, within RetryPeriod and its jitter.
package k8slock

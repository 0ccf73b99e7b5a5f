// Package etcd is the replicated store of a node: one etcd member in this process, reached by function calls.
//
// It promises what quorum.Store and quorum.Member say: commits are transactions that compare the term, confirms and
// loads are linearizable reads, watches deliver whole commits in order. The member listens on one port, for its peers;
// there is no client listener, no HTTP API and no gRPC server.
//
// It does not promise that a call ends before its context does, nor that it knows the outcome of a commit that it
// cannot see: such an error is quorum.ErrUnknown and is never guessed. One commit waits for at most the context, and
// never longer than etcd's own limit of five seconds and two elections, which is longer than the two elections that
// the coordinator grants a commit.
//
// Of clocks it assumes only that timers run: elections and timeouts use Go's monotonic clock, and nothing that is
// stored depends on a time.
//
// How it fails: a member that etcd ends by itself (it was removed from the cluster) closes Done, and Err says why.
// Where etcd would have ended the whole process (a failing disk, a damaged log), the member falls silent toward its
// peers instead, closes Done, and Err is a *FailedError. The memory of a failed member is not to be trusted and its
// directory stays locked: the process should report the error and exit. A panic of etcd that it does not announce in
// its log still ends the process.
package etcd

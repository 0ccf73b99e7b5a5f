// Package remains reads what the data directory of a node that does not run says of its quorum: for when no node answers any
// more, and people have to know who took part and what was granted last.
//
// It promises that nothing in the directory is changed or made, and that a directory is refused, with the file that is wrong,
// which a running server works on, which is damaged, which holds no quorum's state, or whose store is older than the witness
// beside it. It does not promise that the state is the newest that the quorum had: a node may have been behind, or stopped
// long before the others. State.AsOf says from when the newest of it is.
//
// It reads a copy, which it makes below the directory for temporary files (TMPDIR) and removes.
package remains

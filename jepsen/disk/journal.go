//go:build linux

package disk

import (
	"errors"
	"math/rand/v2"
	"slices"
)

// entry is a change of names that may be lost.
type entry struct {
	// inodes are those of the directories and of the file that a flush makes it durable by.
	inodes []uint64
	undo   func() error
	// keep is called when it is durable. It may be nil.
	keep func() error
}

// journal are changes of names that are not durable, in the order in which they happened. One that is durable makes all before
// it so.
type journal []entry

// flush makes durable what a flush of that inode does.
func (j *journal) flush(inode uint64) error {
	var all error
	for i, e := range slices.Backward(*j) {
		if !slices.Contains(e.inodes, inode) {
			continue
		}
		for _, e := range (*j)[:i+1] {
			if e.keep != nil {
				all = errors.Join(all, e.keep())
			}
		}
		*j = slices.Clone((*j)[i+1:])
		break
	}
	return all
}

// cut draws from where on everything is lost.
func (j *journal) cut(rng *rand.Rand, loss *Loss) error {
	var all error
	from := 0
	if rng != nil {
		from = rng.IntN(len(*j) + 1)
	}
	for _, e := range slices.Backward((*j)[from:]) {
		loss.Names++
		all = errors.Join(all, e.undo())
	}
	for _, e := range (*j)[:from] {
		if e.keep != nil {
			all = errors.Join(all, e.keep())
		}
	}
	*j = nil
	return all
}

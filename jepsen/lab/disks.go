//go:build linux

package lab

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/writ-io/writ/jepsen/cluster"
	"github.com/writ-io/writ/jepsen/disk"
)

// addDisks has every node and every guard keep what it has on a disk of its own.
func (l *Lab) addDisks() error {
	l.Disks = make(map[string]*disk.Disk)
	parties := slices.Clone(cluster.Regions[:])
	for i := range l.Guards {
		parties = append(parties, Guard(i))
	}
	for _, party := range parties {
		path := filepath.Join(l.Config.Dir, party)
		if err := os.Mkdir(path, 0o700); err != nil {
			return err
		}
		d, err := disk.New(path, path+".disk")
		if err != nil {
			return err
		}
		l.Disks[party] = d
	}
	return nil
}

// closeDisks ends all disks. The processes that use them have ended.
func (l *Lab) closeDisks() error {
	var all error
	for _, party := range slices.Sorted(maps.Keys(l.Disks)) {
		all = errors.Join(all, l.Disks[party].Close())
	}
	return all
}

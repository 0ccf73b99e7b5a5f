//go:build linux

package disk

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"golang.org/x/sys/unix"
)

// Disk is one file system. Its methods are safe for concurrent use, but nobody may use its files during [Disk.Cut] and
// [Disk.Close].
type Disk struct {
	path, store string

	mu      sync.Mutex
	mount   *served           // guarded by mu; nil while it is not mounted
	off     chan struct{}     // guarded by mu; closed when the mount ends
	images  map[uint64]*image // guarded by mu; by inode, of files with something that is not flushed
	journal journal           // guarded by mu
	removed int               // guarded by mu; names files that were removed
	slow    time.Duration     // guarded by mu
	fail    bool              // guarded by mu
	full    bool              // guarded by mu
	lies    bool              // guarded by mu
}

// New mounts an empty disk at path, which must be an empty directory. What it holds is kept below store, which is made if it
// does not exist. Both belong to the caller, who removes them after [Disk.Close].
func New(path, store string) (*Disk, error) {
	if err := Supported(); err != nil {
		return nil, err
	}
	if err := sweep(); err != nil {
		return nil, err
	}
	d := &Disk{path: path, store: store, images: make(map[uint64]*image)}
	for _, dir := range []string{d.Files(), d.lost()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d, d.attach()
}

// Files is the directory that holds the files of the disk as a process sees them. Who writes to it goes around everything that
// is promised.
func (d *Disk) Files() string { return filepath.Join(d.store, "files") }

// lost holds what was removed, as long as that may be undone.
func (d *Disk) lost() string { return filepath.Join(d.store, "removed") }

// attach mounts. The caller holds mu.
func (d *Disk) attach() (err error) {
	var st unix.Stat_t
	if err := unix.Stat(d.Files(), &st); err != nil {
		return err
	}
	root := &node{&fs.LoopbackNode{RootData: &fs.LoopbackRoot{Path: d.Files(), Dev: st.Dev}}, d}
	root.RootData.RootNode = root
	d.off = make(chan struct{})
	d.mount, err = serve(d.path, root, st.Ino)
	return err
}

// detach unmounts.
func (d *Disk) detach() error {
	d.mu.Lock()
	mount := d.mount
	d.mount = nil
	if mount != nil {
		close(d.off)
	}
	d.mu.Unlock()
	if mount == nil {
		return nil
	}
	return mount.end() // which waits for others who want mu
}

// Close unmounts the disk. It may be called again.
func (d *Disk) Close() error {
	err := d.detach()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, i := range d.images {
		err = errors.Join(err, i.file.Close())
	}
	clear(d.images)
	d.journal = nil
	return err
}

// Slow has every flush take a span more; 0: none.
func (d *Disk) Slow(span time.Duration) { d.set(func() { d.slow = span }) }

// Fail has every flush fail with EIO.
func (d *Disk) Fail(on bool) { d.set(func() { d.fail = on }) }

// Fill has everything fail with ENOSPC that needs space.
func (d *Disk) Fill(on bool) { d.set(func() { d.full = on }) }

// Lie has flushes succeed and do nothing.
func (d *Disk) Lie(on bool) { d.set(func() { d.lies = on }) }

func (d *Disk) set(change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change()
}

// Cut takes the power away: of what is not flushed something is left that is drawn from seed. The processes that use the disk
// must have ended. Switches stay as they are.
func (d *Disk) Cut(seed uint64) (Loss, error) { return d.cut(rand.New(rand.NewPCG(seed, 0))) }

// Revert takes the power away and, with it, everything that is not flushed: what is left is what the disk held at the last flushes.
func (d *Disk) Revert() (Loss, error) { return d.cut(nil) }

// cut draws what is left; without rng, nothing is.
func (d *Disk) cut(rng *rand.Rand) (loss Loss, err error) {
	if err := d.detach(); err != nil {
		return loss, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, inode := range sorted(d.images) {
		i := d.images[inode]
		err = errors.Join(err, i.cut(rng, &loss), i.file.Close())
	}
	clear(d.images)
	if err = errors.Join(err, d.journal.cut(rng, &loss)); err != nil {
		return loss, fmt.Errorf("disk: cut: %w", err)
	}
	return loss, d.attach()
}

// Restore replaces everything on the disk by what is in a directory, as if that were another disk. The processes that use it
// must have ended.
func (d *Disk) Restore(from string) error {
	if err := d.Close(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, dir := range []string{d.Files(), d.lost()} {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(d.lost(), 0o700); err != nil {
		return err
	}
	if err := os.CopyFS(d.Files(), os.DirFS(from)); err != nil {
		return err
	}
	return d.attach()
}

// Save copies what a process sees now into a directory that does not exist. The processes that use it should have ended.
func (d *Disk) Save(to string) error { return os.CopyFS(to, os.DirFS(d.Files())) }

// image returns that of a file that is about to change. The caller holds mu.
func (d *Disk) image(fd int) (*image, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	i := d.images[st.Ino]
	if i == nil {
		var err error
		if i, err = begin(fd); err != nil {
			return nil, err
		}
		d.images[st.Ino] = i
	}
	return i, nil
}

// flush makes durable what a flush of that inode does, or what is said of it.
func (d *Disk) flush(inode uint64) error {
	d.mu.Lock()
	slow, off := d.slow, d.off
	d.mu.Unlock()
	if slow > 0 {
		timer := time.NewTimer(slow)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-off:
			return unix.EIO
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.fail:
		return unix.EIO
	case d.lies:
		return nil
	}
	var err error
	if i := d.images[inode]; i != nil {
		delete(d.images, inode)
		err = i.file.Close()
	}
	return errors.Join(err, d.journal.flush(inode))
}

// place names one for what is being removed. The caller holds mu.
func (d *Disk) place() string {
	d.removed++
	return filepath.Join(d.lost(), strconv.Itoa(d.removed))
}

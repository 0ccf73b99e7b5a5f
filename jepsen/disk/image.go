//go:build linux

package disk

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"

	"golang.org/x/sys/unix"
)

const (
	sector = 512
	page   = 4096
)

// image is what is flushed of a file that holds more, or other things, than that. It exists as long as there is a difference.
type image struct {
	file *os.File // of its own, to read and to write
	size int64    // that is flushed
	// sectors are the flushed contents of those that were written since, by number; nil: zeros.
	sectors map[int64][]byte
}

// begin opens the file of a descriptor, before the first change.
func begin(fd int) (*image, error) {
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	size, err := sizeOf(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &image{file: f, size: size, sectors: make(map[int64][]byte)}, nil
}

func sizeOf(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// keep remembers what is flushed of a part that is about to change. What lies beyond the flushed size was never there.
func (i *image) keep(offset, length int64) error {
	for n := offset / sector; n*sector < offset+length; n++ {
		if _, known := i.sectors[n]; known {
			continue
		}
		if n*sector >= i.size {
			i.sectors[n] = nil
			continue
		}
		old := make([]byte, sector)
		if _, err := i.file.ReadAt(old, n*sector); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if start := i.size - n*sector; start < sector {
			clear(old[start:]) // of a file that has grown without being flushed
		}
		if isZero(old) {
			old = nil
		}
		i.sectors[n] = old
	}
	return nil
}

func isZero(data []byte) bool {
	for _, b := range data {
		if b != 0 {
			return false
		}
	}
	return true
}

// shrink remembers what is flushed and lies beyond a size.
func (i *image) shrink(to int64) error {
	if to >= i.size {
		return nil
	}
	return i.keep(to, i.size-to)
}

// Loss says what a power cut took.
type Loss struct {
	// Files had something that was not flushed.
	Files int
	// Sectors of these, of 512 bytes each, were lost, and Kept were not.
	Sectors, Kept int
	// Names is how many creations, renames and removals were undone.
	Names int
}

func (l Loss) String() string {
	return fmt.Sprintf("%d sectors of %d files lost and %d kept, %d changes of names lost", l.Sectors, l.Files, l.Kept, l.Names)
}

// cut draws what is left of the file, and leaves that.
func (i *image) cut(rng *rand.Rand, loss *Loss) error {
	loss.Files++
	now, err := sizeOf(i.file)
	if err != nil {
		return err
	}
	size, lost := i.size, func(int64) bool { return true }
	if rng != nil {
		lost = losing(rng)
		if rng.IntN(2) == 0 {
			size = now
		}
	}
	if err := i.file.Truncate(size); err != nil {
		return err
	}
	for n, old := range i.sectors {
		start := n * sector
		if start >= size {
			continue
		}
		if start < now && !lost(n) { // what was cut off, and is there again, is there as it was flushed
			loss.Kept++
			continue
		}
		loss.Sectors++
		if old == nil {
			old = make([]byte, sector)
		}
		if _, err := i.file.WriteAt(old[:min(sector, size-start)], start); err != nil {
			return err
		}
	}
	return nil
}

// losing draws how a file loses: everything, nothing, or sectors or pages each by itself.
func losing(rng *rand.Rand) func(sector int64) bool {
	unit := int64(1)
	switch rng.IntN(4) {
	case 0:
		return func(int64) bool { return true }
	case 1:
		return func(int64) bool { return false }
	case 2:
		unit = page / sector
	}
	seed := rng.Uint64()
	return func(n int64) bool { return rand.New(rand.NewPCG(seed, uint64(n/unit))).IntN(2) == 0 }
}

// write writes. Full tells that there is no space for more than there is.
func (i *image) write(data []byte, offset int64, full bool) error {
	if err := i.keep(offset, int64(len(data))); err != nil {
		return err
	}
	if full {
		if room, err := hasRoom(i.file, offset, int64(len(data))); err != nil || !room {
			return errors.Join(unix.ENOSPC, err)
		}
	}
	_, err := i.file.WriteAt(data, offset)
	return err
}

// resize cuts off, or adds zeros.
func (i *image) resize(size int64, full bool) error {
	if err := i.shrink(size); err != nil {
		return err
	}
	now, err := sizeOf(i.file)
	switch {
	case err != nil:
		return err
	case full && size > now:
		return unix.ENOSPC
	}
	return i.file.Truncate(size)
}

// allocate reserves space, or makes a hole, or zeros.
func (i *image) allocate(offset, length int64, mode uint32, full bool) error {
	const zeroing = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_ZERO_RANGE
	switch {
	case mode&^(zeroing|unix.FALLOC_FL_KEEP_SIZE) != 0:
		return unix.EOPNOTSUPP
	case full && mode&unix.FALLOC_FL_PUNCH_HOLE == 0:
		return unix.ENOSPC
	case mode&zeroing != 0:
		if err := i.keep(offset, length); err != nil {
			return err
		}
	}
	return unix.Fallocate(int(i.file.Fd()), mode, offset, length)
}

//go:build linux

package disk

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What the kernel is asked for with FS_IOC_FIEMAP, as linux/fiemap.h has it.
const (
	fiemapRequest = 0xc020660b
	fiemapMost    = 64
)

type fiemapExtent struct {
	Logical, Physical, Length uint64
	_                         [2]uint64
	Flags                     uint32
	_                         [3]uint32
}

type fiemap struct {
	Start, Length        uint64
	Flags, Mapped, Count uint32
	_                    uint32
	Extents              [fiemapMost]fiemapExtent
}

// hasRoom tells whether a part of a file can be written without more space: it does not lie beyond the end, nor in a hole. Of a
// file system that does not tell of holes only the end is known.
func hasRoom(f *os.File, offset, length int64) (bool, error) {
	size, err := sizeOf(f)
	if err != nil || offset+length > size {
		return false, err
	}
	for at, end := uint64(offset), uint64(offset+length); at < end; {
		m := fiemap{Start: at, Length: end - at, Count: fiemapMost}
		_, _, failed := unix.Syscall(unix.SYS_IOCTL, f.Fd(), fiemapRequest, uintptr(unsafe.Pointer(&m)))
		if failed == unix.EOPNOTSUPP || failed == unix.ENOTTY {
			return true, nil
		}
		if failed != 0 {
			return false, failed
		}
		if m.Mapped == 0 {
			return false, nil
		}
		for _, e := range m.Extents[:m.Mapped] {
			if e.Logical > at {
				return false, nil
			}
			at = max(at, e.Logical+e.Length)
		}
	}
	return true, nil
}

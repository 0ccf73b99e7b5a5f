//go:build linux

package disk

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

func sorted(images map[uint64]*image) []uint64 { return slices.Sorted(maps.Keys(images)) }

// inodeOf returns 0 for what does not exist.
func inodeOf(path string) (uint64, os.FileMode) {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return 0, 0
	}
	mode := os.FileMode(st.Mode & 0o777)
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		mode |= os.ModeDir
	}
	return st.Ino, mode
}

// named writes down a name that was made, which a cut removes.
func (n *node) named(path string) {
	inode, _ := inodeOf(path)
	n.disk.journal = append(n.disk.journal, entry{inodes: []uint64{n.inode(), inode}, undo: func() error { return os.Remove(path) }})
}

// making carries out what makes a name. The caller must not hold mu.
func (n *node) making(name string, do func(path string) syscall.Errno) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if n.disk.full {
		return unix.ENOSPC
	}
	path := filepath.Join(n.path(), name)
	failed := do(path)
	if failed == 0 {
		n.named(path)
	}
	return failed
}

// Create makes a file, or opens one that somebody else has just made.
func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (child *fs.Inode, h fs.FileHandle, _ uint32, failed syscall.Errno) {
	failed = n.making(name, func(path string) syscall.Errno {
		f, err := os.OpenFile(path, int(flags)&^(unix.O_APPEND|unix.O_TRUNC)|os.O_CREATE|os.O_EXCL, os.FileMode(mode))
		if err != nil {
			return code(err)
		}
		h = &handle{fs.NewLoopbackFileFromOS(f), f, n.disk}
		return 0
	})
	if failed != 0 {
		return nil, nil, 0, failed
	}
	child, failed = n.Lookup(ctx, name, out)
	return child, h, 0, failed
}

// Mkdir makes a directory.
func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (child *fs.Inode, failed syscall.Errno) {
	failed = n.making(name, func(string) (failed syscall.Errno) {
		child, failed = n.LoopbackNode.Mkdir(ctx, name, mode, out)
		return failed
	})
	return child, failed
}

// Symlink makes one.
func (n *node) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (child *fs.Inode, failed syscall.Errno) {
	failed = n.making(name, func(string) (failed syscall.Errno) {
		child, failed = n.LoopbackNode.Symlink(ctx, target, name, out)
		return failed
	})
	return child, failed
}

// Link makes a name of a file.
func (n *node) Link(ctx context.Context, target fs.InodeEmbedder, name string, out *fuse.EntryOut) (child *fs.Inode, failed syscall.Errno) {
	other, ok := target.(*node)
	if !ok {
		return nil, unix.EXDEV
	}
	failed = n.making(name, func(string) (failed syscall.Errno) {
		child, failed = n.LoopbackNode.Link(ctx, other.LoopbackNode, name, out)
		return failed
	})
	return child, failed
}

// Mknod makes what disks of programs do not hold.
func (n *node) Mknod(context.Context, string, uint32, uint32, *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, unix.EPERM
}

// Unlink removes a name, which a cut brings back.
func (n *node) Unlink(_ context.Context, name string) syscall.Errno {
	d := n.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	path, place := filepath.Join(n.path(), name), d.place()
	inode, _ := inodeOf(path)
	if err := os.Rename(path, place); err != nil {
		return code(err)
	}
	d.journal = append(d.journal, entry{
		inodes: []uint64{n.inode(), inode},
		undo:   func() error { return os.Rename(place, path) },
		keep:   func() error { return os.Remove(place) },
	})
	return 0
}

// Rmdir removes a directory, which a cut brings back.
func (n *node) Rmdir(_ context.Context, name string) syscall.Errno {
	d := n.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	path := filepath.Join(n.path(), name)
	_, mode := inodeOf(path)
	if err := unix.Rmdir(path); err != nil {
		return code(err)
	}
	d.journal = append(d.journal, entry{inodes: []uint64{n.inode()}, undo: func() error { return os.Mkdir(path, mode.Perm()) }})
	return 0
}

// Rename gives a file or directory another name, and removes what had that. A cut undoes both.
func (n *node) Rename(_ context.Context, name string, parent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	to, ok := parent.(*node)
	if !ok {
		return unix.EXDEV
	}
	d := n.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	oldPath, newPath := filepath.Join(n.path(), name), filepath.Join(to.path(), newName)
	inode, _ := inodeOf(oldPath)
	was, mode := inodeOf(newPath)
	e := entry{inodes: []uint64{n.inode(), to.inode(), inode}, undo: func() error { return os.Rename(newPath, oldPath) }}
	switch {
	case flags&^unix.RENAME_NOREPLACE != 0:
		return unix.EINVAL
	case was == 0 || was == inode:
	case flags != 0:
		return unix.EEXIST
	case mode.IsDir():
		e.undo = func() error { return errors.Join(os.Rename(newPath, oldPath), os.Mkdir(newPath, mode.Perm())) }
	default:
		place := d.place()
		if err := os.Link(newPath, place); err != nil {
			return code(err)
		}
		e.undo = func() error { return errors.Join(os.Rename(newPath, oldPath), os.Rename(place, newPath)) }
		e.keep = func() error { return os.Remove(place) }
	}
	if err := os.Rename(oldPath, newPath); err != nil {
		if e.keep != nil {
			_ = e.keep()
		}
		return code(err)
	}
	d.journal = append(d.journal, e)
	return 0
}

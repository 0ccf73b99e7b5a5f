//go:build linux

package disk

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// node is a file or a directory. What it does not do itself is passed on.
type node struct {
	*fs.LoopbackNode
	disk *Disk
}

// WrapChild makes a node of what is passed on to.
func (n *node) WrapChild(_ context.Context, child fs.InodeEmbedder) fs.InodeEmbedder {
	return &node{child.(*fs.LoopbackNode), n.disk}
}

// inode is that of the file that is passed on to.
func (n *node) inode() uint64 { return n.StableAttr().Ino }

var (
	_ fs.NodeWrapChilder     = (*node)(nil)
	_ fs.NodeCreater         = (*node)(nil)
	_ fs.NodeOpener          = (*node)(nil)
	_ fs.NodeSetattrer       = (*node)(nil)
	_ fs.NodeFsyncer         = (*node)(nil)
	_ fs.NodeOpendirHandler  = (*node)(nil)
	_ fs.FileFsyncdirer      = (*listing)(nil)
	_ fs.NodeUnlinker        = (*node)(nil)
	_ fs.NodeRenamer         = (*node)(nil)
	_ fs.NodeMkdirer         = (*node)(nil)
	_ fs.NodeRmdirer         = (*node)(nil)
	_ fs.NodeLinker          = (*node)(nil)
	_ fs.NodeCopyFileRanger  = (*node)(nil)
	_ fs.FileWriter          = (*handle)(nil)
	_ fs.FileAllocater       = (*handle)(nil)
	_ fs.FilePassthroughFder = (*handle)(nil)
)

// path is that of the file that is passed on to.
func (n *node) path() string { return filepath.Join(n.disk.Files(), n.Path(n.Root())) }

// Fsync is that of files and of directories.
func (n *node) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	return code(n.disk.flush(n.inode()))
}

// code is the number of an error.
func code(err error) syscall.Errno {
	var number syscall.Errno
	if err != nil && !errors.As(err, &number) {
		return unix.EIO
	}
	return number
}

// handle is an open file.
type handle struct {
	*fs.LoopbackFile
	file *os.File // the same
	disk *Disk
}

// PassthroughFd keeps the kernel from going around everything.
func (h *handle) PassthroughFd() (int, bool) { return 0, false }

// Ioctl is of no use to anybody.
func (h *handle) Ioctl(context.Context, uint32, uint64, []byte, []byte) (int32, syscall.Errno) {
	return 0, unix.ENOTTY
}

// Write remembers what was flushed, and writes.
func (h *handle) Write(_ context.Context, data []byte, offset int64) (uint32, syscall.Errno) {
	err := h.disk.change(h.file, func(i *image, full bool) error { return i.write(data, offset, full) })
	if err != nil {
		return 0, code(err)
	}
	return uint32(len(data)), 0
}

// Allocate remembers what was flushed, and allocates.
func (h *handle) Allocate(_ context.Context, offset, size uint64, mode uint32) syscall.Errno {
	return code(h.disk.change(h.file, func(i *image, full bool) error { return i.allocate(int64(offset), int64(size), mode, full) }))
}

// change changes a file that is open.
func (d *Disk) change(f *os.File, do func(i *image, full bool) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	i, err := d.image(int(f.Fd()))
	if err != nil {
		return err
	}
	return do(i, d.full)
}

// Setattr sets a size as it is written, and everything else at once.
func (n *node) Setattr(ctx context.Context, f fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok {
		if err := n.resize(f, int64(size)); err != nil {
			return code(err)
		}
		in.Valid &^= fuse.FATTR_SIZE
	}
	return n.LoopbackNode.Setattr(ctx, f, in, out)
}

func (n *node) resize(f fs.FileHandle, size int64) error {
	var file *os.File
	if h, ok := f.(*handle); ok {
		file = h.file
	} else {
		var err error
		if file, err = os.OpenFile(n.path(), os.O_RDWR, 0); err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
	}
	return n.disk.change(file, func(i *image, full bool) error { return i.resize(size, full) })
}

// Open opens a file. The kernel empties it by a call of its own.
func (n *node) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	f, err := os.OpenFile(n.path(), int(flags)&^(unix.O_APPEND|unix.O_TRUNC|fuse.FMODE_EXEC)|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, 0, code(err)
	}
	return &handle{fs.NewLoopbackFileFromOS(f), f, n.disk}, 0, 0
}

// CopyFileRange is left to the kernel, which reads and writes.
func (n *node) CopyFileRange(context.Context, fs.FileHandle, uint64, *fs.Inode, fs.FileHandle, uint64, uint64, uint64) (uint32, syscall.Errno) {
	return 0, unix.EOPNOTSUPP
}

// listing is an open directory.
type listing struct {
	listed
	node *node
}

type listed interface {
	fs.FileReaddirenter
	fs.FileSeekdirer
	fs.FileReleasedirer
}

// Fsyncdir is that of the node.
func (l *listing) Fsyncdir(ctx context.Context, flags uint32) syscall.Errno {
	return l.node.Fsync(ctx, nil, flags)
}

// OpendirHandle opens a directory.
func (n *node) OpendirHandle(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	stream, failed := fs.NewLoopbackDirStream(n.path())
	if failed != 0 {
		return nil, 0, failed
	}
	return &listing{stream.(listed), n}, 0, 0
}

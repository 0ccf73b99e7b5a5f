//go:build linux

package disk

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// prefix of what is shown as the source of a mount; the id of the process that serves it follows.
const prefix = "writ-jepsen-disk-"

// device is what file systems in user space are served by.
const device = "/dev/fuse"

// ErrUnsupported means that this machine, or this user, cannot have such disks.
var ErrUnsupported = errors.New("disk: file systems in user space cannot be used here")

// Supported returns an [ErrUnsupported] that says what is missing, or nil.
func Supported() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: run it as root", ErrUnsupported)
	}
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%w: load the kernel's module fuse: %s: %w", ErrUnsupported, device, err)
	}
	return unix.Close(fd)
}

// served is a mount that this process serves.
type served struct {
	path   string
	server *fuse.Server
	ended  sync.WaitGroup
}

// serve mounts a file system. No child of this process has the descriptor, so that the mount is dead when this process is.
func serve(path string, root fs.InodeEmbedder, inode uint64) (*served, error) {
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	source, remembered := prefix+strconv.Itoa(os.Getpid()), time.Second
	options := &fs.Options{EntryTimeout: &remembered, AttrTimeout: &remembered, RootStableAttr: &fs.StableAttr{Ino: inode, Gen: 1}}
	options.MountOptions = fuse.MountOptions{
		FsName: source, Name: "writ", DisableXAttrs: true, MaxWrite: fuse.MAX_KERNEL_WRITE,
		ExplicitDataCacheControl: true, // nobody else changes what is in files
	}
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,max_read=%d", fd, fuse.MAX_KERNEL_WRITE)
	if err := unix.Mount(source, path, "fuse.writ", unix.MS_NOSUID|unix.MS_NODEV, data); err != nil {
		return nil, errors.Join(fmt.Errorf("disk: mount %s: %w", path, err), unix.Close(fd))
	}
	s := &served{path: path}
	s.server, err = fuse.NewServer(fs.NewNodeFS(root, options), fmt.Sprintf("/dev/fd/%d", fd), &options.MountOptions)
	if err != nil {
		return nil, errors.Join(err, unmount(path), unix.Close(fd))
	}
	s.ended.Go(s.server.Serve)
	if err := errors.Join(s.server.WaitMount(), poll(path)); err != nil {
		return nil, errors.Join(err, s.end())
	}
	return s, nil
}

// poll has the kernel learn that files cannot be waited for, before a program of Go opens one: it would ask in a way in which its
// scheduler does not know that it waits, and if that is this very program, for itself.
func poll(path string) error {
	fd, err := unix.Open(filepath.Join(path, ".go-fuse-epoll-hack"), unix.O_RDONLY|unix.O_CLOEXEC, 0) // that of the library
	if err != nil {
		return err
	}
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return errors.Join(err, unix.Close(fd))
}

// end unmounts, and waits until everything that was asked has been answered. Whoever still has files of it open gets errors.
func (s *served) end() error {
	err := unmount(s.path)
	if err == nil {
		s.ended.Wait()
	}
	return err
}

// unmount also has mounts end that other namespaces have copies of.
func unmount(path string) error {
	if err := unix.Unmount(path, unix.MNT_FORCE|unix.MNT_DETACH); err != nil {
		return fmt.Errorf("disk: unmount %s: %w", path, err)
	}
	return nil
}

// sweep removes the mounts of processes that are gone.
func sweep() error {
	mounts, err := os.Open("/proc/self/mounts")
	if err != nil {
		return err
	}
	defer func() { _ = mounts.Close() }()
	var all error
	lines := bufio.NewScanner(mounts)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || !strings.HasPrefix(fields[0], prefix) {
			continue
		}
		if !gone(strings.TrimPrefix(fields[0], prefix)) {
			continue
		}
		if err := unmount(plain.Replace(fields[1])); err != nil && !errors.Is(err, unix.EINVAL) { // or somebody else was faster
			all = errors.Join(all, err)
		}
	}
	return errors.Join(all, lines.Err())
}

// gone tells whether a process has ended. One that waits for a file that it served itself cannot end before it is unmounted.
func gone(process string) bool {
	status, err := os.ReadFile(filepath.Join("/proc", process, "status"))
	return errors.Is(err, os.ErrNotExist) || bytes.Contains(status, []byte("\nState:\tZ"))
}

// plain undoes how the kernel shows paths.
var plain = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

//go:build linux

package nemesis

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// watch hears of writes to the files of a directory when they have been made, and before they are flushed: what a program tells
// nobody of before it is on its disk is not told of yet.
type watch struct{ file *os.File }

// watchWrites begins to hear. Close it.
func watchWrites(directory string) (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK) // so that a deadline ends a read
	if err != nil {
		return nil, fmt.Errorf("nemesis: inotify: %w", err)
	}
	w := &watch{os.NewFile(uintptr(fd), "inotify")}
	if _, err := unix.InotifyAddWatch(fd, directory, unix.IN_MODIFY); err != nil {
		return nil, errors.Join(fmt.Errorf("nemesis: watch %s: %w", directory, err), w.close())
	}
	return w, nil
}

func (w *watch) close() error { return w.file.Close() }

// await waits for a write, and returns false if ctx ends before.
func (w *watch) await(ctx context.Context) bool {
	if w.file.SetReadDeadline(time.Time{}) != nil {
		return false
	}
	defer context.AfterFunc(ctx, func() { _ = w.file.SetReadDeadline(time.Unix(1, 0)) })()
	var events [4096]byte
	n, err := w.file.Read(events[:])
	return err == nil && n > 0
}

// directory finds the first directory of a name below a path. Errors: there is none.
func directory(below, name string) (found string, err error) {
	err = filepath.WalkDir(below, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // it was removed meanwhile
		case err == nil && entry.IsDir() && entry.Name() == name:
			found = path
			return fs.SkipAll
		}
		return err
	})
	if err == nil && found == "" {
		err = fmt.Errorf("nemesis: there is no directory %s below %s", name, below)
	}
	return found, err
}

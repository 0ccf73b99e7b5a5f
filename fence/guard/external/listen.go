package external

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
)

// ErrSocketInUse means that another process listens on a socket.
var ErrSocketInUse = errors.New("external: socket in use")

// maxSocketPath is what the address of a socket has room for on Linux.
const maxSocketPath = 107

// ListenUnix listens on a unix socket with the given mode of its file. A file that a process left behind is removed; one
// that is in use is [ErrSocketInUse], and one that is no socket is left alone. PATH.lock beside it keeps two processes from
// taking the same leftover for theirs.
//
// For a moment after its creation the file has the mode that the umask gives: see to it that the directory is not open to
// those who must not connect, or look at the peer's credentials.
func ListenUnix(path string, mode fs.FileMode) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("socket %s: has a name of %d bytes: use at most %d", path, len(path), maxSocketPath)
	}
	unlock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	l, err := listenLocked(path, mode)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("socket %s: %w", path, err), unlock())
	}
	return &lockedListener{Listener: l, unlock: unlock}, nil
}

func listenLocked(path string, mode fs.FileMode) (net.Listener, error) {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, errors.New("there is a file that is no socket: remove it, or choose another name")
	default:
		// Whoever listens without the lock is not a guard.
		if conn, err := net.Dial("unix", path); err == nil {
			return nil, errors.Join(fmt.Errorf("%w: stop what listens there, or choose another name", ErrSocketInUse), conn.Close())
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, mode); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// lockedListener keeps the lock until the socket is gone.
type lockedListener struct {
	net.Listener
	unlock func() error
	once   sync.Once
	err    error // set by once
}

func (l *lockedListener) Close() error {
	l.once.Do(func() { l.err = errors.Join(l.Listener.Close(), l.unlock()) })
	return l.err
}

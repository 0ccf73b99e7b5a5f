package policy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/writ-io/writ/lease"
)

// maxFileBytes is far above any policy that people can keep in their heads.
const maxFileBytes = 16 << 20

// File is a policy that follows a file. It is safe for concurrent use.
type File struct {
	path     string
	logger   hclog.Logger
	onChange func(*Policy)
	now      atomic.Pointer[Policy] // never nil once opened

	mu     sync.Mutex // guards what follows, and the order of calls of onChange
	data   []byte     // what now was made of
	failed string     // the failure that was logged last; empty after a success
}

// Open reads the file. onChange, if not nil, is called with every later state of it, one call at a time.
func Open(path string, logger hclog.Logger, onChange func(*Policy)) (*File, error) {
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	f := &File{path: path, logger: logger, onChange: onChange}
	data, err := f.read()
	if err != nil {
		return nil, err
	}
	p, err := f.parse(data)
	if err != nil {
		return nil, err
	}
	f.data = data
	f.now.Store(p)
	return f, nil
}

// Policy answers the present state.
func (f *File) Policy() *Policy { return f.now.Load() }

// Allows asks the present state, see [Policy.Allows].
func (f *File) Allows(principal lease.Principal, verb Verb, name string) bool {
	return f.now.Load().Allows(principal, verb, name)
}

// Reload reads the file again. It reports whether there is a new state, or why the old one was kept.
func (f *File) Reload() (changed bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	data, err := f.read()
	if err == nil && bytes.Equal(data, f.data) {
		f.failed = ""
		return false, nil
	}
	var p *Policy
	if err == nil {
		p, err = f.parse(data)
	}
	if err != nil {
		if text := err.Error(); text != f.failed {
			f.failed = text
			f.logger.Error("policy file is not usable: the old policy stays", "error", err)
		}
		return false, err
	}
	f.data, f.failed = data, ""
	f.now.Store(p)
	f.logger.Info("policy reloaded", "file", f.path, "grants", len(p.Grants), "resources", len(p.Resources.Rules))
	if f.onChange != nil {
		f.onChange(p)
	}
	return true, nil
}

// Watch reloads the file every so often, until ctx ends. What goes wrong is logged.
func (f *File) Watch(ctx context.Context, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			_, _ = f.Reload() // logged
		}
	}
}

// read reads the file whole. Comparing contents needs no trust in modification times.
func (f *File) read() (data []byte, err error) {
	file, err := os.Open(f.path)
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	data, err = io.ReadAll(io.LimitReader(file, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	if len(data) > maxFileBytes {
		return nil, fmt.Errorf("policy %s: is larger than %d bytes", f.path, maxFileBytes)
	}
	return data, nil
}

func (f *File) parse(data []byte) (*Policy, error) {
	p, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("policy %s: %w", f.path, err)
	}
	return p, nil
}

package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// maxBytes is far above any configuration.
const maxBytes = 4 << 20

// Format is what the configurations of programs differ in.
type Format struct {
	// Prefix is that of every variable, such as WRIT_SERVER_.
	Prefix string
	// First is a line that a file may begin with, for who does not know how.
	First string
	// Example is the command that shows every key.
	Example string
}

// Error says which field of a configuration is wrong, how, and what would do.
type Error struct{ Field, Problem, Fix string }

func (e *Error) Error() string { return e.Field + ": " + e.Problem + ": " + e.Fix }

// Wrong is an [*Error].
func Wrong(field, problem, fix string) error { return &Error{field, problem, fix} }

// OneLine is the text of err without line breaks, as libraries for YAML like them.
func OneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// Load reads the file at path and the variables of environ. finish is to fill defaults in, to resolve the paths in it, which
// are relative to dir, and to check the outcome. The error names the file, and the field and the fix of everything that is
// wrong, one to a line.
func Load[C any](f Format, path string, environ []string, finish func(config *C, dir string) error) (C, error) {
	var none C
	data, err := read(path)
	if err != nil {
		return none, err
	}
	config, err := Parse[C](f, data, environ)
	if err == nil {
		err = finish(&config, filepath.Dir(path))
	}
	if err != nil {
		return none, fmt.Errorf("configuration %s: %w", path, err)
	}
	return config, nil
}

func read(path string) (data []byte, err error) {
	if path == "" {
		return nil, errors.New("no configuration: name the file with --config")
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	data, err = io.ReadAll(io.LimitReader(file, maxBytes+1))
	if err == nil && len(data) > maxBytes {
		err = fmt.Errorf("is larger than %d bytes", maxBytes)
	}
	if err != nil {
		return nil, fmt.Errorf("configuration %s: %w", path, err)
	}
	return data, nil
}

// Resolve makes those of the paths that are relative and not empty start at dir.
func Resolve(dir string, paths ...*string) {
	for _, path := range paths {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
}

// CheckFile refuses a path that is no file, or, if it is secret, one that others may read.
func CheckFile(field, path string, secret bool) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return Wrong(field, OneLine(err), "name a file that this process may read")
	case !info.Mode().IsRegular():
		return Wrong(field, path+" is not a regular file", "name a file")
	case secret && runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0:
		return Wrong(field, fmt.Sprintf("%s has mode %04o, which lets others in", path, info.Mode().Perm()), "chmod 600 "+path)
	}
	return nil
}

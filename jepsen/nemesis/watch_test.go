//go:build linux

package nemesis

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestWritesAreHeard(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "node", "member", "wal")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "0.wal")
	if err := os.WriteFile(path, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	found, err := directory(filepath.Dir(filepath.Dir(dir)), "wal")
	if err != nil || found != dir {
		t.Fatalf("%s, %v", found, err)
	}
	w, err := watchWrites(found)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.close() }()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for round := range 3 {
		heard := make(chan bool)
		go func() { heard <- w.await(ctx) }()
		if err := os.WriteFile(path, []byte("after"), 0o600); err != nil {
			t.Fatal(err)
		}
		if !<-heard {
			t.Fatalf("write %d was not heard", round)
		}
		for { // it may be heard of in parts
			soon, done := context.WithTimeout(ctx, 50*time.Millisecond)
			more := w.await(soon)
			done()
			if !more {
				break
			}
		}
	}
}

func TestNothingIsWritten(t *testing.T) {
	w, err := watchWrites(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if w.await(ctx) {
		t.Error("heard a write that was not made")
	}
	missing := filepath.Join(t.TempDir(), "missing")
	if _, err := watchWrites(missing); err == nil || !strings.Contains(err.Error(), missing) {
		t.Error(err)
	}
	if _, err := directory(t.TempDir(), "wal"); err == nil || !strings.Contains(err.Error(), "no directory wal") {
		t.Error(err)
	}
}

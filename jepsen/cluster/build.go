//go:build linux

package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Variables of the environment that name a program that exists, so that none is built.
const (
	BinaryVariable      = "WRIT_JEPSEN_BINARY"
	GuardBinaryVariable = "WRIT_JEPSEN_GUARD_BINARY"
)

// Build builds the writ program into dir, as it is shipped, and returns its path.
func Build(ctx context.Context, dir string) (string, error) {
	return build(ctx, dir, "writ", BinaryVariable)
}

// BuildGuard does the same for writ-guard.
func BuildGuard(ctx context.Context, dir string) (string, error) {
	return build(ctx, dir, "writ-guard", GuardBinaryVariable)
}

func build(ctx context.Context, dir, name, variable string) (string, error) {
	if path := os.Getenv(variable); path != "" {
		return path, nil
	}
	path := filepath.Join(dir, name)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", path, "github.com/writ-io/writ/cmd/"+name)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cluster: build of cmd/%s: %w\n%s", name, err, out)
	}
	return path, nil
}

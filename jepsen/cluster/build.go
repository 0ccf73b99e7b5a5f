//go:build linux

package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// BinaryVariable names a writ program that exists, so that none is built.
const BinaryVariable = "WRIT_JEPSEN_BINARY"

// Build builds the writ program into dir, as it is shipped, and returns its path.
func Build(ctx context.Context, dir string) (string, error) {
	if path := os.Getenv(BinaryVariable); path != "" {
		return path, nil
	}
	path := filepath.Join(dir, "writ")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", path, "github.com/writ-io/writ/cmd/writ")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cluster: build of cmd/writ: %w\n%s", err, out)
	}
	return path, nil
}

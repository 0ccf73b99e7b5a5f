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
	EtcdBinaryVariable  = "WRIT_JEPSEN_ETCD_BINARY"
)

// Build builds the writ program into dir, as it is shipped, and returns its path.
func Build(ctx context.Context, dir string) (string, error) {
	return build(ctx, dir, "writ", "github.com/writ-io/writ/cmd/writ", BinaryVariable)
}

// BuildGuard does the same for writ-guard.
func BuildGuard(ctx context.Context, dir string) (string, error) {
	return build(ctx, dir, "writ-guard", "github.com/writ-io/writ/cmd/writ-guard", GuardBinaryVariable)
}

// BuildEtcd builds an etcd server of the version that Writ embeds, to be compared with.
func BuildEtcd(ctx context.Context, dir string) (string, error) {
	return build(ctx, dir, "etcd", "go.etcd.io/etcd/server/v3", EtcdBinaryVariable)
}

func build(ctx context.Context, dir, name, pkg, variable string) (string, error) {
	if path := os.Getenv(variable); path != "" {
		return path, nil
	}
	path := filepath.Join(dir, name)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", path, pkg)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cluster: build of %s: %w\n%s", pkg, err, out)
	}
	return path, nil
}

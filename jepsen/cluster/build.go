//go:build linux

package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// Variables of the environment that name a program that exists, so that none is built.
const (
	BinaryVariable      = "WRIT_JEPSEN_BINARY"
	GuardBinaryVariable = "WRIT_JEPSEN_GUARD_BINARY"
	EtcdBinaryVariable  = "WRIT_JEPSEN_ETCD_BINARY"

	ForgetfulGuardBinaryVariable = "WRIT_JEPSEN_FORGETFUL_GUARD_BINARY"
)

const module = "github.com/writ-io/writ"

// Build builds the writ program into dir, as it is shipped, and returns its path.
func Build(ctx context.Context, dir string) (string, error) {
	return build(ctx, dir, "writ", module+"/cmd/writ", BinaryVariable)
}

// BuildGuard does the same for writ-guard.
func BuildGuard(ctx context.Context, dir string) (string, error) {
	return build(ctx, dir, "writ-guard", module+"/cmd/writ-guard", GuardBinaryVariable)
}

// BuildForgetfulGuard builds a writ-guard that keeps its floors in memory alone, and goes by them after a restart without
// having heard from the quorum: two bugs of the simulator's list.
func BuildForgetfulGuard(ctx context.Context, dir string) (string, error) {
	return build(ctx, dir, "writ-guard-forgetful", module+"/cmd/writ-guard", ForgetfulGuardBinaryVariable,
		"-tags", "mutants", "-ldflags", "-X "+module+"/sim/mutant.planted=FloorInMemory,AdmitUnseeded")
}

// BuildEtcd builds an etcd server of the version that Writ embeds, to be compared with.
func BuildEtcd(ctx context.Context, dir string) (string, error) {
	return build(ctx, dir, "etcd", "go.etcd.io/etcd/server/v3", EtcdBinaryVariable)
}

func build(ctx context.Context, dir, name, pkg, variable string, flags ...string) (string, error) {
	if path := os.Getenv(variable); path != "" {
		return path, nil
	}
	path := filepath.Join(dir, name)
	cmd := exec.CommandContext(ctx, "go", slices.Concat([]string{"build", "-trimpath", "-buildvcs=false", "-o", path}, flags, []string{pkg})...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cluster: build of %s: %w\n%s", pkg, err, out)
	}
	return path, nil
}

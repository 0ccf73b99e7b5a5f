//go:build !linux

package cli

import (
	"context"

	"github.com/writ-io/writ/lease"
)

func (a *app) runCommandLine(context.Context, string, []string, runFlags) error {
	return lease.Errorf(lease.ReasonInternal, "writ run works on Linux only: elsewhere the end of every process of a command cannot be promised")
}

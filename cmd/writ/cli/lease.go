package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
)

func (a *app) leaseCommand() *cobra.Command {
	cmd := group(&cobra.Command{Use: "lease", Short: "Acquire, look at and release leases"})
	cmd.AddCommand(
		a.acquireCommand(), a.getCommand(), a.listCommand(), a.watchCommand(), a.renewCommand(), a.releaseCommand(),
		a.forceReleaseCommand(), a.checkpointCommand(),
	)
	return cmd
}

func tokenFlag(cmd *cobra.Command, token *string, usage string) {
	cmd.Flags().StringVar(token, "token", "", usage)
}

// parseToken reads a token in either form.
func parseToken(s string) (fence.Token, error) {
	const fix = "use the token of the grant, decimal or epoch.sequence"
	if s == "" {
		return 0, lease.Invalid("--token", "is missing", fix)
	}
	t, err := fence.ParseToken(s)
	if err != nil {
		return 0, lease.Invalid("--token", fmt.Sprintf("is %q", s), fix)
	}
	return t, nil
}

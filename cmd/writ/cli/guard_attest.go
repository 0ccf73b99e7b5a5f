package cli

import (
	"github.com/spf13/cobra"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
)

func (a *app) guardAttestCommand() *cobra.Command {
	req := &writv1.AttestGuardRequest{}
	var out string
	cmd := &cobra.Command{
		Use:   "attest NAME --group GROUP --reason REASON",
		Short: "Have people answer for a guard of a failover group that is gone for good",
		Long: `Have people answer for a guard that is out, does not come back, and cannot be known to refuse: that its process admits nothing
any more. When enough have signed, and it is executed, whatever awaits the guard goes on (a promotion, a group that is removed or
has just been applied, leases), and the guard is off the list, so that its replacement may enrol under its name.

GROUP is a failover group whose tenure the guard covers. The rules for changes of all such groups have to be satisfied, by two
people at least. Within a promotion that awaits the guard, and while it may still be heard of, use writ promote attest.

  writ guard attest g1 --group orders --reason 'its disk is shredded' -o attest.json
  writ promote approve attest.json --key ~/.ssh/id_ed25519        (each approver)
  writ promote execute attest.json`,
		Args: arguments("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch req.Guard = args[0]; {
			case req.Group == "":
				return lease.Invalid("--group", "is missing", "name a failover group whose tenure the guard covers; if there is none, one person is enough: writ guard remove --attest")
			case req.Reason == "":
				return lease.Invalid("--reason", "is missing", "say how it is known that the guard admits nothing; it is signed, too")
			}
			op, err := askRegions(cmd.Context(), a.once, writv1.RegionServiceClient.AttestGuard, req)
			return a.proposed(op, err, out)
		},
	}
	cmd.Flags().StringVar(&req.Group, "group", "", "a failover group whose tenure the guard covers")
	cmd.Flags().StringVar(&req.Reason, "reason", "", "how it is known; it is signed, too")
	outFile(cmd, &out)
	return cmd
}

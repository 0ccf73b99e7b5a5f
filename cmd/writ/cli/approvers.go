package cli

import (
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region"
)

func (a *app) approversCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use: "approvers", Short: "Who may approve",
		Long: "Who may approve promotions and changes: people, their keys and roles. Every change is itself approved, by the rule that the set has.",
	})
	cmd.AddCommand(a.approversGetCommand(), a.approversSetCommand())
	return cmd
}

func (a *app) approversGetCommand() *cobra.Command {
	return &cobra.Command{
		Use: "get", Short: "Show who may approve", Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			set, err := askRegions(cmd.Context(), a.each, writv1.RegionServiceClient.GetApprovers, &writv1.GetApproversRequest{})
			if err != nil {
				return err
			}
			return a.print(set, func(w io.Writer) { a.printApprovers(w, set) })
		},
	}
}

func (a *app) approversSetCommand() *cobra.Command {
	var file, reason, out string
	cmd := &cobra.Command{
		Use:   "set -f FILE",
		Short: "Ask for another set of approvers, which has to be approved",
		Long: `Ask for another set of approvers. The file is the whole set, in YAML; a key may be written as its line in an authorized_keys
file. It happens when the people whom the present rule asks for have signed it ("writ promote approve") and it has been executed
("writ promote execute").`,
		Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return lease.Invalid("--file", "is missing", "name a YAML file of approvers, or - for standard input")
			}
			data, err := a.readFile("--file", file)
			if err != nil {
				return err
			}
			set, err := region.ParseApprovers(data)
			if err != nil {
				return fileError(file, err)
			}
			op, err := askRegions(cmd.Context(), a.once, writv1.RegionServiceClient.ChangeApprovers, &writv1.ChangeApproversRequest{Set: set, Reason: reason})
			return a.proposed(op, err, out)
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "YAML `file`")
	cmd.Flags().StringVar(&reason, "reason", "", "why; it is signed, too")
	outFile(cmd, &out)
	return cmd
}

func (a *app) printApprovers(w io.Writer, set *writv1.ApproverSet) {
	a.pairs(w, pair{"version", text(strconv.FormatUint(set.GetVersion(), 10))}, pair{"changes", text(ruleText(set.GetRule()))})
	_, _ = io.WriteString(w, "\n")
	var rows [][]cell
	for _, p := range set.GetApprovers() {
		for i, k := range p.GetKeys() {
			row := []cell{text(oneLine(p.GetName())), text(oneLine(strings.Join(p.GetRoles(), ","))), keyState(k), text(fingerprintOf(k)), text(oneLine(strings.Join(p.GetPrincipals(), ",")))}
			if i > 0 {
				row[0], row[1], row[4] = cell{" ", plain}, cell{" ", plain}, cell{" ", plain}
			}
			rows = append(rows, row)
		}
	}
	a.columns(w, []string{"NAME", "ROLES", "KEY", "FINGERPRINT", "PRINCIPALS"}, rows)
}

func keyState(k *writv1.ApproverKey) cell {
	switch {
	case k.GetRevoked():
		return cell{"revoked", bad}
	case k.GetExpiresAt() != nil:
		return text("until " + timeText(k.GetExpiresAt()))
	}
	return cell{"valid", good}
}

// fingerprintOf is as ssh-keygen -l prints it.
func fingerprintOf(k *writv1.ApproverKey) string {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(k.GetPublicKey()))
	if err != nil {
		return "unreadable"
	}
	return ssh.FingerprintSHA256(key)
}

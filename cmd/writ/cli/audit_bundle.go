package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/audit"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region"
)

func (a *app) auditExportCommand() *cobra.Command {
	req := &writv1.ExportAuditRequest{}
	var out string
	var force bool
	cmd := &cobra.Command{
		Use:   "export [FILE]",
		Short: "Write a bundle that shows, with no server, what the log says",
		Long: `Write a bundle: the records, the heads that nodes have signed, their keys, and the documents and signatures of what was approved,
as files that ssh-keygen -Y verify takes. The file appears under its name only when it is whole and on disk, and is verified
at once. It is named as the argument or with -o (with a dot or a slash in it). Unless --timeout is given it may take an hour.`,
		Annotations: map[string]string{takesFile: ""},
		Args:        arguments("[FILE]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if out = strings.Join(append(args, a.file), ""); out == "" || (len(args) > 0 && a.file != "") {
				return lease.Invalid("FILE", "is missing, or given twice", "write: "+cmd.CommandPath()+" -o audit.tar.gz")
			}
			patient := *a
			if !cmd.Flags().Changed("timeout") {
				patient.timeout = snapshotTimeout
			}
			if _, _, err := patient.download(cmd.Context(), out, force, receiveBundle(req)); err != nil {
				return err
			}
			found, err := verifyFile(audit.Verifier{}, out)
			if err != nil {
				return err
			}
			return a.print(found, func(w io.Writer) {
				_, _ = fmt.Fprintf(w, "exported %s: records %d to %d, signed up to %d\n", out, found.From.Sequence+1, found.To.Sequence, found.Covered)
			})
		},
	}
	cmd.Flags().Uint64Var(&req.From, "from", 0, "the first `record`; 0: the oldest there is")
	cmd.Flags().Uint64Var(&req.To, "to", 0, "the last `record`; 0: the newest")
	cmd.Flags().BoolVar(&force, "force", false, "replace the file if it exists")
	return cmd
}

// verified is what was found in a bundle, as data.
type verified struct {
	File string `json:"file"`
	audit.Report
	// From is the record that the first one continues.
	From audit.Position `json:"start"`
	To   audit.Position `json:"end"`
}

// exitBroken is the code for a bundle in which something is wrong.
const exitBroken = lease.ExitRefused

func verifyFile(v audit.Verifier, path string) (verified, error) {
	file, err := os.Open(path)
	if err != nil {
		return verified{}, lease.Invalid("BUNDLE", "cannot be read: "+err.Error(), "name a file that writ audit export wrote")
	}
	defer func() { _ = file.Close() }() // it was only read
	report, err := v.Verify(file)
	out := verified{File: path, Report: report, From: report.Start.Position(), To: report.End.Position()}
	if err != nil {
		return out, &exitError{code: exitBroken, cause: fmt.Errorf("%s: %w", path, err)}
	}
	return out, nil
}

func (a *app) auditVerifyCommand() *cobra.Command {
	var keys, approvers string
	cmd := &cobra.Command{
		Use:   "verify BUNDLE...",
		Short: "Check bundles with no server",
		Long: `Check that the chain of each bundle has no gap, that signed heads are right and on it, that each signature over a document is right
and by somebody who could approve then, and that nothing was executed without what its rule asks for. Several bundles have to
follow one another. Exit code 2 says that something is wrong; the message names the first record that is.

Without --keys, the nodes' keys in the bundle are taken at their word. Get them from a node, and keep them elsewhere:
https://NODE:7412/.well-known/jwks.json
Without --approvers, so is the first set of approvers: compare the fingerprints that are shown, or give the file that the quorum
was founded with.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return lease.Invalid("BUNDLE", "is missing", "write: "+cmd.CommandPath()+" BUNDLE")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			v, err := a.verifier(keys, approvers)
			if err != nil {
				return err
			}
			return a.auditVerify(v, args)
		},
	}
	cmd.Flags().StringVar(&keys, "keys", "", "keys of nodes that are trusted: a JSON Web Key Set in a `file`; one of them has to have signed")
	cmd.Flags().StringVar(&approvers, "approvers", "", "the `file` with the approvers that you know; the first set of the bundle has to be these")
	return cmd
}

// verifier knows what an auditor brings along.
func (a *app) verifier(keys, approvers string) (v audit.Verifier, err error) {
	if keys != "" {
		data, err := os.ReadFile(keys)
		if err != nil {
			return v, lease.Invalid("--keys", "cannot be read: "+err.Error(), "name a JSON Web Key Set")
		}
		if v.Trusted, err = fence.ParseJWKS(data); err != nil || v.Trusted.Len() == 0 {
			return v, lease.Invalid("--keys", fmt.Sprintf("has no usable keys (%v)", err), "name a JSON Web Key Set")
		}
	}
	if approvers == "" {
		return v, nil
	}
	data, err := a.readFile("--approvers", approvers)
	if err != nil {
		return v, err
	}
	if v.Approvers, err = region.ParseApprovers(data); err != nil {
		return v, fileError(approvers, err)
	}
	return v, nil
}

func (a *app) auditVerify(v audit.Verifier, paths []string) error {
	for i, path := range paths {
		found, err := verifyFile(v, path)
		if err != nil {
			return err
		}
		if err := a.print(found, func(w io.Writer) { a.printVerified(w, v, found) }); err != nil {
			return err
		}
		if i+1 == len(paths) {
			continue
		}
		v.Approvers = nil // of the first bundle; those of the next one are those that it ends with
		next, err := verifyFile(v, paths[i+1])
		if err != nil {
			return err
		}
		if !next.Start.Is(found.End) || next.Cluster != found.Cluster {
			return &exitError{code: exitBroken, cause: fmt.Errorf("%s does not continue %s: that ends with record %d (%s), and it begins behind record %d (%s)",
				paths[i+1], path, found.To.Sequence, found.To.Hash, next.From.Sequence, next.From.Hash)}
		}
		if next.StartApprovers != nil && !next.StartApprovers.Same(found.LastApprovers) {
			return &exitError{code: exitBroken, cause: fmt.Errorf("%s begins with other approvers than %s ends with", paths[i+1], path)}
		}
	}
	return nil
}

func (a *app) printVerified(w io.Writer, v audit.Verifier, found verified) {
	zone := time.UTC
	period := ""
	if !found.First.IsZero() {
		period = found.First.In(zone).Format(time.RFC3339) + " to " + found.Last.In(zone).Format(time.RFC3339)
	}
	trust := "those in the bundle, taken at their word"
	if v.Trusted.Len() > 0 {
		trust = fmt.Sprintf("%d given as trusted", v.Trusted.Len())
	}
	a.pairs(w,
		pair{"bundle", text(found.File)},
		pair{"chain", cell{"unbroken", good}},
		pair{"cluster", text(oneLine(found.Cluster))},
		pair{"incarnation", text(oneLine(found.Incarnation))},
		pair{"records", text(fmt.Sprintf("%d, behind record %d and up to %d", found.Records, found.From.Sequence, found.To.Sequence))},
		pair{"times", text(period)},
		pair{"newest hash", text(found.To.Hash)},
		pair{"signed up to", text(fmt.Sprintf("record %d", found.Covered))},
		pair{"nodes' keys", text(trust)},
		pair{"approvers", text(firstApprovers(v, found.FirstApprovers))},
		pair{"signatures", text(fmt.Sprintf("%d by approvers, all right", found.Signatures))},
		pair{"executed", text(fmt.Sprintf("%d operations", found.Executed))},
	)
	printApproverKeys(w, found.FirstApprovers)
	for _, h := range found.Heads {
		_, _ = fmt.Fprintf(w, "head %d signed by node %s with %s: %s\n", h.Sequence, oneLine(h.Node), h.Key, h.State)
	}
	for _, f := range found.Forks {
		_, _ = fmt.Fprintf(w, "record %d: the quorum was rebuilt, epoch %s begins (%s)\n", f.Sequence, oneLine(f.Epoch), oneLine(f.Reason))
	}
	for _, o := range found.Operations {
		by := oneLine(strings.Join(o.Approvers, ", "))
		switch {
		case o.Automatic:
			by = "nobody: on evidence"
		case by == "":
			by = "nobody"
		}
		_, _ = fmt.Fprintf(w, "record %d: executed %s %s, approved by %s\n", o.Sequence, oneLine(o.Kind), oneLine(o.ID), by)
		if o.Unchecked != "" {
			_, _ = fmt.Fprintf(w, "record %d: not checked: %s\n", o.Sequence, o.Unchecked)
		}
	}
	for _, u := range found.Unchecked {
		_, _ = fmt.Fprintln(w, "note:", oneLine(u))
	}
}

// firstApprovers says what all approvals of a bundle rest on.
func firstApprovers(v audit.Verifier, first *audit.Approvers) string {
	switch {
	case first == nil:
		return "none"
	case v.Approvers != nil:
		return fmt.Sprintf("version %d of record %d, which are those that were given", first.Version, first.Sequence)
	default:
		return fmt.Sprintf("version %d of record %d, taken at its word", first.Version, first.Sequence)
	}
}

// printApproverKeys lists the people that all approvals rest on, as they can be asked for their keys.
func printApproverKeys(w io.Writer, first *audit.Approvers) {
	if first == nil {
		return
	}
	for _, p := range first.People {
		for _, k := range p.Keys {
			line := fmt.Sprintf("approver %s: %s %s", oneLine(p.Name), oneLine(k.Type), k.Fingerprint)
			if k.Revoked {
				line += ", revoked"
			}
			if !k.Expires.IsZero() {
				line += ", until " + k.Expires.UTC().Format(time.RFC3339)
			}
			_, _ = fmt.Fprintln(w, line)
		}
	}
}

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region/approval"
)

// idForm is how promotions and operations are named.
var idForm = regexp.MustCompile(`^[a-z][a-z0-9-]*-[0-9]+\.[0-9]+$`)

// idOf answers the id that an argument is, or that the file of that name is about.
func idOf(arg string) (string, error) {
	id, _, err := target(arg)
	return id, err
}

// target reads an argument that is an id or the file of a document. doc is nil without a file.
func target(arg string) (id string, doc []byte, err error) {
	const fix = "give an id such as orders-1.3, or the file that writ promote plan wrote"
	const most = 1 << 20
	info, err := os.Stat(arg)
	switch {
	case err != nil && idForm.MatchString(arg):
		return arg, nil, nil
	case err != nil:
		return "", nil, lease.Invalid("ID", fmt.Sprintf("%q is no id, and no file: %v", arg, errors.Unwrap(err)), fix)
	case !info.Mode().IsRegular() || info.Size() > most:
		return "", nil, lease.Invalid("ID", fmt.Sprintf("%q is no plan's file", arg), fix)
	}
	if doc, err = os.ReadFile(arg); err != nil {
		return "", nil, lease.Invalid("ID", fmt.Sprintf("%q cannot be read: %v", arg, err), fix)
	}
	d, err := approval.ParseDocument(doc)
	if err != nil {
		return "", nil, lease.Invalid(arg, "is not a document as the quorum wrote it: "+oneLine(err.Error()), "do not edit it; get it again with writ promote document ID --out FILE")
	}
	return d.ID, doc, nil
}

type approveFlags struct {
	sign              signOptions
	signature, digest string
	yes               bool
}

func (a *app) approveCommand() *cobra.Command {
	var f approveFlags
	cmd := &cobra.Command{
		Use:   "approve FILE|ID --key FILE | --agent | --signature FILE",
		Short: "Sign a promotion, or another operation",
		Long: `Sign an operation. All that matters of it is shown first: on a terminal, the group's name has to be typed then; elsewhere --yes
has to be given together with --digest, the SHA-256 of what you mean to sign.

--key takes a private key of OpenSSH, or the .pub file of one that is in the ssh-agent or in hardware. --signature hands in what
ssh-keygen has signed:

  ssh-keygen -Y sign -n writ-approval@v1 -f ~/.ssh/id_ed25519 plan.json      (writes plan.json.sig)
  writ promote approve plan.json --signature plan.json.sig

Here --key is the key that signs; the one of the connection is --tls-key, or WRIT_KEY.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 && f.sign.agent && f.sign.fingerprint == "" && strings.HasPrefix(args[1], "SHA256:") {
				f.sign.fingerprint, args = args[1], args[:1] // --agent SHA256:...
			}
			return arguments("FILE|ID")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.approve(cmd.Context(), args[0], f) },
	}
	cmd.Flags().StringVar(&f.sign.key, "key", "", "sign with this `file`: an OpenSSH private key, or the .pub of one that the ssh-agent has")
	cmd.Flags().BoolVar(&f.sign.agent, "agent", false, "let the ssh-agent sign; if it has several keys, write the fingerprint of one behind it")
	cmd.Flags().StringVar(&f.sign.fingerprint, "fingerprint", "", "let the ssh-agent sign with this key, `SHA256:...`")
	cmd.Flags().StringVar(&f.signature, "signature", "", "hand in the signature in this `file`")
	cmd.Flags().StringVar(&f.digest, "digest", "", "the SHA-256 of the document that you mean to sign, `hexadecimal`")
	cmd.Flags().StringVar(&a.key, "tls-key", "", "the private key of the connection, PEM `file` (WRIT_KEY)")
	yesFlag(cmd, &f.yes)
	return cmd
}

// check wants exactly one way to sign.
func (f *approveFlags) check() error {
	ways := 0
	for _, given := range []bool{f.sign.key != "", f.sign.agent || f.sign.fingerprint != "", f.signature != ""} {
		if given {
			ways++
		}
	}
	switch {
	case ways != 1:
		return lease.Invalid("--key", "or another way to sign has to be given", "give one of --key FILE, --agent and --signature FILE")
	case f.yes && f.digest == "":
		return lease.Invalid("--digest", "is missing", "with --yes, say which document you mean by its SHA-256: sha256sum FILE")
	}
	return nil
}

func (a *app) approve(ctx context.Context, arg string, f approveFlags) error {
	if err := f.check(); err != nil {
		return err
	}
	op, err := a.operationToSign(ctx, arg)
	if err != nil {
		return err
	}
	if f.digest != "" && !strings.EqualFold(f.digest, op.GetDigest()) {
		return lease.Errorf(lease.ReasonConflict, "operation %s has the digest %s, and not %s: it is not what you mean to sign", op.GetId(), op.GetDigest(), f.digest)
	}
	if err := a.showToSign(op); err != nil {
		return err
	}
	name := cmp.Or(op.GetGroup(), "approvers")
	if err := a.confirm(ctx, "You sign this.", name, f.yes); err != nil {
		return err
	}
	var armored string
	if f.signature != "" {
		raw, err := a.readFile("--signature", f.signature)
		if err != nil {
			return err
		}
		armored = string(raw)
	} else if armored, err = a.signDocument(ctx, op.GetDocument(), f.sign); err != nil {
		return err
	}
	op, err = askRegions(ctx, a.each, writv1.RegionServiceClient.Approve, &writv1.ApproveRequest{Id: op.GetId(), Signature: armored})
	if err != nil {
		return err
	}
	return a.print(op, func(w io.Writer) { a.printOperation(w, op) })
}

// operationToSign answers the operation as the quorum has it, of which it has been seen that the digest is that of the document,
// and that a file holds the same one.
func (a *app) operationToSign(ctx context.Context, arg string) (*writv1.Operation, error) {
	id, file, err := target(arg)
	if err != nil {
		return nil, err
	}
	op, err := a.operation(ctx, id)
	if err != nil {
		return nil, err
	}
	if digest := approval.Digest(op.GetDocument()); digest != op.GetDigest() {
		return nil, lease.Errorf(lease.ReasonInternal, "the quorum says that operation %s has the digest %s, and its document has %s: do not sign it", id, op.GetDigest(), digest)
	}
	if file != nil && approval.Digest(file) != op.GetDigest() {
		e := lease.Errorf(lease.ReasonConflict, "%s is not what operation %s is about: its digest is %s, and that of the operation %s", arg, id, approval.Digest(file), op.GetDigest())
		e.Fix = "do not edit it; get it again with writ promote document " + id + " --out FILE"
		return nil, e
	}
	switch op.GetState() {
	case writv1.OperationState_OPERATION_STATE_PENDING:
		return op, nil
	case writv1.OperationState_OPERATION_STATE_EXPIRED:
		return nil, lease.Errorf(lease.ReasonExpired, "operation %s may not be signed any more: it expired at %s", id, timeText(op.GetExpiresAt()))
	default:
		return nil, lease.Errorf(lease.ReasonConflict, "operation %s is %s: nothing is left to sign", id, enumText(op.GetState()))
	}
}

// showToSign shows what is to be signed, and who has, to people: it is no data.
func (a *app) showToSign(op *writv1.Operation) error {
	if _, err := a.showDocument(a.stderr, op.GetDocument()); err != nil {
		return lease.Errorf(lease.ReasonInternal, "the document of operation %s cannot be shown, so do not sign it: %v", op.GetId(), err)
	}
	_, _ = fmt.Fprintln(a.stderr)
	a.pairs(a.stderr,
		pair{"has to be signed by", text(ruleText(op.GetRule()))}, pair{"signed by", text(signedBy(op))}, pair{"missing", text(oneLine(op.GetMissing()))},
	)
	_, _ = fmt.Fprintln(a.stderr)
	return nil
}

func (a *app) withdrawCommand() *cobra.Command {
	req := &writv1.WithdrawRequest{}
	cmd := &cobra.Command{
		Use: "withdraw FILE|ID --approver NAME", Short: "Take a signature back, until the operation has been executed", Args: arguments("FILE|ID"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if req.Id, err = idOf(args[0]); err != nil {
				return err
			}
			if req.GetApprover() == "" {
				return lease.Invalid("--approver", "is missing", "say whose signature it is, by the name that writ approvers get shows")
			}
			op, err := askRegions(cmd.Context(), a.once, writv1.RegionServiceClient.Withdraw, req)
			if err != nil {
				return err
			}
			return a.print(op, func(w io.Writer) { a.printOperation(w, op) })
		},
	}
	cmd.Flags().StringVar(&req.Approver, "approver", "", "whose signature, by `name`")
	cmd.Flags().StringVar(&req.Reason, "reason", "", "why; it stands in the audit log")
	return cmd
}

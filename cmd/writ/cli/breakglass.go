package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region/approval"
	"github.com/writ-io/writ/region/approval/breakglass"
)

func (a *app) breakglassCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use: "breakglass", Short: "Let guards go on when the quorum is lost for good",
		Long: `Let guards go on when the quorum is lost for good. The approvers' rule has to sign for it: with this, people and not the quorum
answer for there being one region only that writes. docs/BREAKGLASS.md says when, and how.

  writ breakglass plan --to eu --guard 10.0.0.5:7420 --resource orders-db=orders --status status.json \
      --attest region=us:"…" --attest region=ap:"…" --guards guards.json --attest guard=us-db:"…" --reason "…" --out cert.json
  writ breakglass sign cert.json --key ~/.ssh/id_ed25519        (each of the people)
  writ breakglass apply cert.json --guard 10.0.0.5:7420`,
	})
	cmd.AddCommand(a.breakglassPlanCommand(), a.breakglassSignCommand(), a.breakglassApplyCommand(), a.breakglassShowCommand())
	return cmd
}

func (a *app) breakglassShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show FILE", Short: "Show what a certificate says, and how many have signed it", Args: arguments("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			file, c, err := a.certificate(args[0])
			if err != nil {
				return err
			}
			data := map[string]any{"certificate": json.RawMessage(file.Document), "digest": approval.Digest([]byte(file.Document)), "signatures": file.Signatures}
			return a.print(data, func(w io.Writer) { a.printCertificate(w, file, c) })
		},
	}
}

// certificate reads a certificate. Its signatures are not judged: that takes the approvers, which guards know.
func (a *app) certificate(path string) (breakglass.File, breakglass.Certificate, error) {
	raw, err := a.readFile("FILE", path)
	if err != nil {
		return breakglass.File{}, breakglass.Certificate{}, err
	}
	file, c, err := breakglass.ParseFile(raw)
	if err != nil {
		return file, c, lease.Invalid("FILE", "is not usable: "+err.Error(), "take what writ breakglass plan has written, unchanged")
	}
	return file, c, nil
}

// printCertificate shows all that a certificate says, for the person who is asked to sign it.
func (a *app) printCertificate(w io.Writer, file breakglass.File, c breakglass.Certificate) {
	action := "continue: the guards go on under the last tenure's token"
	if c.Action == breakglass.Advance {
		action = fmt.Sprintf("ADVANCE: the guards move to epoch %d, for a region that takes over", c.Epoch+1)
	}
	left := cell{text: "EXPIRED " + span(a.now().Sub(c.Expires)) + " ago", style: bad}
	if until := c.Expires.Sub(a.now()); until > 0 {
		left = text("in " + span(until))
	}
	left.text = c.Expires.Format(time.RFC3339) + ", " + left.text
	lines := []pair{{"certificate", text(shown(c.ID))}, {"action", text(action)}}
	for _, g := range c.Grants {
		what := fmt.Sprintf("%s writes under %v (last known %v)", shown(g.Region), fence.Token(g.Token), fence.Token(g.After))
		if g.Group != "" {
			what += ", group " + shown(g.Group)
		}
		lines = append(lines, pair{shown(g.Resource), text(what)})
	}
	for _, name := range c.Guards {
		lines = append(lines, pair{"opens guard", text(shown(name))})
	}
	for _, t := range c.Attested {
		lines = append(lines, pair{"off for sure", text(fmt.Sprintf("%s %s: %s (says %s)", t.Kind, shown(t.Name), shown(t.Statement), shown(t.By)))})
	}
	lines = append(lines,
		pair{"reason", text(shown(c.Reason))}, pair{"requester", text(shown(c.Requester))},
		pair{"created", text(c.Created.Format(time.RFC3339))}, pair{"expires", left},
		pair{"approvers' version", text(strconv.FormatUint(c.ApproversVersion, 10))},
		pair{"cluster", text(fmt.Sprintf("%s, epoch %d, incarnation %s", shown(c.Cluster), c.Epoch, shown(c.Incarnation)))},
		pair{"signatures", text(strconv.Itoa(len(file.Signatures)) + ", which the guards judge")},
		pair{"SHA-256", text(approval.Digest([]byte(file.Document)))},
	)
	a.pairs(w, lines...)
}

type breakglassSign struct {
	sign              signOptions
	signature, digest string
	yes               bool
}

func (a *app) breakglassSignCommand() *cobra.Command {
	var f breakglassSign
	cmd := &cobra.Command{
		Use: "sign FILE --key FILE | --agent | --signature FILE", Short: "Sign a certificate",
		Long: `Sign a certificate. All that it says is shown first; the cluster's name has to be typed then, or --yes given together with --digest.
The signature is put into the file. What ssh-keygen has signed is handed in with --signature:

  jq -j .document cert.json > cert.doc && ssh-keygen -Y sign -n writ-breakglass@v1 -f ~/.ssh/id_ed25519 cert.doc`,
		Args: arguments("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.breakglassSign(cmd.Context(), args[0], f) },
	}
	cmd.Flags().StringVar(&f.sign.key, "key", "", "sign with this `file`: an OpenSSH private key, or the .pub of one that the ssh-agent has")
	cmd.Flags().BoolVar(&f.sign.agent, "agent", false, "let the ssh-agent sign")
	cmd.Flags().StringVar(&f.sign.fingerprint, "fingerprint", "", "let the ssh-agent sign with this key, `SHA256:...`")
	cmd.Flags().StringVar(&f.signature, "signature", "", "hand in the signature in this `file`")
	cmd.Flags().StringVar(&f.digest, "digest", "", "the SHA-256 of the certificate that you mean to sign, `hexadecimal`")
	cmd.Flags().StringVar(&a.key, "tls-key", "", "the private key of the connection, PEM `file` (WRIT_KEY)")
	yesFlag(cmd, &f.yes)
	return cmd
}

func (a *app) breakglassSign(ctx context.Context, path string, f breakglassSign) error {
	file, c, err := a.certificate(path)
	if err != nil {
		return err
	}
	doc := []byte(file.Document)
	switch digest := approval.Digest(doc); {
	case f.yes && f.digest == "":
		return lease.Invalid("--digest", "is missing", "with --yes, say which certificate you mean by its SHA-256: writ breakglass show FILE")
	case f.digest != "" && !strings.EqualFold(f.digest, digest):
		return lease.Errorf(lease.ReasonConflict, "%s has the digest %s, and not %s: it is not what you mean to sign", path, digest, f.digest)
	}
	a.printCertificate(a.stderr, file, c)
	if err := a.confirm(ctx, "You answer for this: that what is attested is off, and that nobody else writes.", c.Cluster, f.yes); err != nil {
		return err
	}
	var armored string
	if f.signature != "" {
		raw, err := a.readFile("--signature", f.signature)
		if err != nil {
			return err
		}
		armored = string(raw)
	} else {
		f.sign.namespace = breakglass.Namespace
		if armored, err = a.signDocument(ctx, doc, f.sign); err != nil {
			return err
		}
	}
	if err := newSignature(path, file, armored); err != nil {
		return err
	}
	file.Signatures = append(file.Signatures, armored)
	if err := writeCertificate(path, file, true); err != nil {
		return err
	}
	data := map[string]any{"file": path, "digest": approval.Digest(doc), "signatures": len(file.Signatures)}
	return a.print(data, func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "signatures in %s: %d\n", path, len(file.Signatures))
	})
}

// newSignature refuses one that would make the whole file unusable, or that counts for nothing beside those that are there.
func newSignature(path string, file breakglass.File, armored string) error {
	key, err := approval.Check(breakglass.Namespace, []byte(file.Document), armored)
	var bad *approval.Error
	if errors.As(err, &bad) {
		return lease.Invalid("signature", bad.Problem, bad.Fix)
	}
	if err != nil {
		return err
	}
	for i, known := range file.Signatures {
		signed, err := approval.Check(breakglass.Namespace, []byte(file.Document), known)
		if err != nil {
			return lease.Errorf(lease.ReasonConflict, "signatures[%d] of %s cannot be used: %v. Take the file as it was planned, and sign it anew", i, path, err)
		}
		if signed == key {
			return lease.Errorf(lease.ReasonConflict, "%s has a signature by the key %s already", path, key)
		}
	}
	return nil
}

// writeCertificate writes a file that is there whole or not at all.
func writeCertificate(path string, file breakglass.File, replace bool) error {
	raw, err := file.Encode()
	if err != nil {
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".part-*")
	if err != nil {
		return lease.Invalid("FILE", "cannot be written: "+err.Error(), "name a file in a writable directory")
	}
	defer func() { _ = os.Remove(temporary.Name()) }() // it has its name by then
	_, err = temporary.Write(raw)
	if err := errors.Join(err, temporary.Sync(), temporary.Close()); err != nil {
		return err
	}
	return publish(temporary.Name(), path, replace)
}

func (a *app) breakglassApplyCommand() *cobra.Command {
	var guards []string
	cmd := &cobra.Command{
		Use: "apply FILE --guard ADDRESS…", Short: "Hand a signed certificate to guards",
		Long: `Hand a signed certificate to guards, by their admin addresses: host:port, or unix:/path. Each judges it by what it knows itself:
the signatures, whether it is cut off, and which tokens it has seen. A guard that is configured with breakglass_file takes it from
there as well.`,
		Args: arguments("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.breakglassApply(cmd.Context(), args[0], guards)
		},
	}
	cmd.Flags().StringSliceVar(&guards, "guard", nil, "admin `address` of a guard, host:port or unix:/path; may be given several times")
	return cmd
}

// appliedCertificate is what a guard answered.
type appliedCertificate struct {
	Address   string   `json:"address"`
	Guard     string   `json:"guard,omitempty"`
	Open      bool     `json:"open"`
	Resources []string `json:"resources,omitempty"`
	Signers   []string `json:"signers,omitempty"`
	Error     string   `json:"error,omitempty"`
}

func (a *app) breakglassApply(ctx context.Context, path string, guards []string) error {
	if len(guards) == 0 {
		return lease.Invalid("--guard", "is missing", "name the admin address of each guard that is to be opened")
	}
	file, _, err := a.certificate(path)
	if err != nil {
		return err
	}
	raw, err := file.Encode()
	if err != nil {
		return err
	}
	var all []appliedCertificate
	refused := 0
	for _, address := range guards {
		answer := appliedCertificate{Address: address}
		if err := askGuard(ctx, http.MethodPost, address, "/breakglass", raw, &answer); err != nil {
			answer.Error = err.Error()
		}
		if !answer.Open {
			refused++
		}
		all = append(all, answer)
	}
	err = a.print(all, func(w io.Writer) {
		var rows [][]cell
		for _, r := range all {
			state := cell{"OPEN for " + oneLine(strings.Join(r.Resources, ", ")), good}
			if !r.Open {
				state = cell{"refused: " + oneLine(r.Error), bad}
			}
			rows = append(rows, []cell{text(oneLine(r.Address)), text(oneLine(r.Guard)), state})
		}
		a.columns(w, []string{"ADDRESS", "GUARD", "ANSWER"}, rows)
	})
	if err == nil && refused > 0 {
		return lease.Errorf(lease.ReasonDenied, "%d of %d guards did not take the certificate", refused, len(all))
	}
	return err
}

// askGuard asks at the admin address of a guard.
func askGuard(ctx context.Context, method, address, path string, body []byte, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	transport := &http.Transport{DisableKeepAlives: true}
	host := address
	if socket, ok := strings.CutPrefix(address, "unix:"); ok {
		host = "guard"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+host+path, bytes.NewReader(body))
	if err != nil {
		return lease.Invalid("--guard", fmt.Sprintf("%q is no address", address), "write it like 127.0.0.1:7420 or unix:/run/writ-guard/admin.sock")
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return fmt.Errorf("the guard does not answer: %w", err)
	}
	defer func() { _ = response.Body.Close() }() // it has been read
	raw, err := io.ReadAll(io.LimitReader(response.Body, 4<<20))
	if err != nil {
		return fmt.Errorf("the guard's answer: %w", err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("the guard's answer (%s) cannot be read: is %s the admin address of writ-guard?", response.Status, address)
	}
	return nil
}

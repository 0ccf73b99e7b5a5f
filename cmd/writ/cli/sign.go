package cli

import (
	"cmp"
	"context"
	"errors"
	"os"

	"golang.org/x/crypto/ssh"

	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region/approval"
)

// signOptions say which key signs.
type signOptions struct {
	// key is the path of a private key, or of a .pub file whose private half the ssh-agent has.
	key string
	// agent: the ssh-agent signs; with fingerprint if it has several keys.
	agent       bool
	fingerprint string
	// namespace of the signature; empty: that of approvals.
	namespace string
}

// signDocument signs a document for an approval. It asks for the passphrase on the terminal, if the key has one.
func (a *app) signDocument(ctx context.Context, doc []byte, o signOptions) (armored string, err error) {
	byAgent := o.agent || o.fingerprint != ""
	switch {
	case o.key == "" && !byAgent:
		return "", lease.Invalid("--key", "is missing", "name a private key, or the .pub file of a key that ssh-agent has, or give --agent")
	case o.key != "" && byAgent:
		return "", lease.Invalid("--key", "is given as well as --agent or --fingerprint", "give one of them; with --key FILE.pub, ssh-agent signs, too")
	}
	load := func() (ssh.Signer, error) { return approval.AgentSigner(os.Getenv("SSH_AUTH_SOCK"), o.fingerprint) }
	if !byAgent {
		load = func() (ssh.Signer, error) {
			return approval.LoadSigner(o.key, func() ([]byte, error) { return a.askSecret(ctx, "Passphrase of "+shown(o.key)+": ") })
		}
	}
	signer, err := load()
	if err == nil {
		armored, err = signWith(ctx, signer, cmp.Or(o.namespace, approval.Namespace), doc)
	}
	var field *approval.FieldError
	if errors.As(err, &field) {
		return "", lease.Invalid(field.Field, field.Problem, field.Fix)
	}
	if err != nil {
		return "", err
	}
	return armored, nil
}

// signWith waits for a key that wants to be touched only as long as somebody wants to sign.
func signWith(ctx context.Context, signer ssh.Signer, namespace string, doc []byte) (string, error) {
	type outcome struct {
		armored string
		err     error
	}
	done := make(chan outcome, 1)
	go func() { // ends with the program if nobody touches it
		armored, err := approval.Sign(signer, namespace, doc)
		done <- outcome{armored, err}
	}()
	select {
	case <-ctx.Done():
		return "", errors.New("interrupted; nothing was signed")
	case o := <-done:
		return o.armored, o.err
	}
}

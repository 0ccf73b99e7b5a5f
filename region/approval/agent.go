package approval

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

const (
	agentVariable = "SSH_AUTH_SOCK"
	agentAnswers  = 10 * time.Second
	// Somebody may have to find a piece of hardware, and touch it.
	agentSigns = 2 * time.Minute
)

// AgentSigner signs with a key that an ssh-agent holds, at the socket that SSH_AUTH_SOCK names. Which key is said by its
// fingerprint (SHA256:...) or by its line in the .pub file; empty: the agent's only one that may approve. The connection is
// made anew for each signature.
func AgentSigner(socket, fingerprintOrPub string) (ssh.Signer, error) {
	if socket == "" {
		return nil, &FieldError{agentVariable, "is not set: there is no ssh-agent", `start one with: eval "$(ssh-agent)" && ssh-add KEY`}
	}
	wanted := strings.TrimSpace(fingerprintOrPub)
	if wanted != "" && !strings.HasPrefix(wanted, "SHA256:") {
		public, err := parseKey(wanted)
		if err != nil {
			return nil, &FieldError{"key", err.Error(), "name a key by its fingerprint as ssh-keygen -l prints it, or by its .pub file"}
		}
		wanted = ssh.FingerprintSHA256(public)
	}
	s := &agentSigner{socket: socket}
	var keys []*agent.Key
	err := s.ask(agentAnswers, func(a agent.ExtendedAgent) (err error) {
		keys, err = a.List()
		return err
	})
	if err != nil {
		return nil, err
	}
	var found []ssh.PublicKey
	var has []string
	for _, k := range keys {
		public, err := ssh.ParsePublicKey(k.Blob)
		if err != nil {
			continue // of a kind that cannot approve
		}
		fingerprint := ssh.FingerprintSHA256(public)
		what, fix := unusable(public)
		switch {
		case wanted == fingerprint && what != "":
			return nil, &FieldError{"key " + fingerprint, "is " + what, fix}
		case what != "":
		case wanted == "" || wanted == fingerprint:
			found = append(found, public)
		}
		if what == "" {
			has = append(has, fingerprint)
		}
	}
	switch {
	case len(found) == 1:
		s.public = found[0]
		return s, nil
	case len(has) == 0:
		return nil, &FieldError{"ssh-agent", "has no key that may approve", "add one with ssh-add KEY"}
	case len(found) == 0:
		return nil, &FieldError{"key " + wanted, "is not in the ssh-agent, which has " + strings.Join(has, ", "), "add it with ssh-add KEY"}
	}
	return nil, &FieldError{"ssh-agent", "has several keys: " + strings.Join(has, ", "), "say which: by its fingerprint, or by its .pub file"}
}

type agentSigner struct {
	socket string
	public ssh.PublicKey
}

var _ ssh.AlgorithmSigner = (*agentSigner)(nil)

func (s *agentSigner) PublicKey() ssh.PublicKey { return s.public }

func (s *agentSigner) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return s.SignWithAlgorithm(rand, data, "")
}

// SignWithAlgorithm is asked for RSA, whose plain signatures are over SHA-1.
func (s *agentSigner) SignWithAlgorithm(_ io.Reader, data []byte, algorithm string) (sig *ssh.Signature, err error) {
	var flags agent.SignatureFlags
	switch algorithm {
	case "", s.public.Type():
	case ssh.KeyAlgoRSASHA256:
		flags = agent.SignatureFlagRsaSha256
	case ssh.KeyAlgoRSASHA512:
		flags = agent.SignatureFlagRsaSha512
	default:
		return nil, fmt.Errorf("approval: an ssh-agent does not sign with %s", algorithm)
	}
	err = s.ask(agentSigns, func(a agent.ExtendedAgent) (err error) {
		sig, err = a.SignWithFlags(s.public, data, flags)
		return err
	})
	return sig, err
}

func (s *agentSigner) ask(within time.Duration, do func(agent.ExtendedAgent) error) (err error) {
	conn, err := net.DialTimeout("unix", s.socket, agentAnswers)
	if err != nil {
		return fmt.Errorf("approval: the ssh-agent does not answer: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := conn.SetDeadline(time.Now().Add(within)); err != nil {
		return fmt.Errorf("approval: ssh-agent: %w", err)
	}
	if err := do(agent.NewClient(conn)); err != nil {
		return fmt.Errorf("approval: the ssh-agent refused, or did not answer in %s: %w", within, err)
	}
	return nil
}

package approval

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

const (
	maxKeyFile = 64 << 10
	maxTries   = 3
)

// Sign signs a document, and answers the armored signature. A signature that would not verify is never answered.
func Sign(signer ssh.Signer, namespace string, doc []byte) (armored string, err error) {
	public := signer.PublicKey()
	if what, fix := unusable(public); what != "" {
		return "", &FieldError{"key", "is " + what, fix}
	}
	sig, err := sshsig.Sign(bytes.NewReader(doc), signer, sshsig.HashSHA512, namespace)
	if err != nil {
		return "", fmt.Errorf("approval: signing: %w", err)
	}
	armored = string(sshsig.Armor(sig))
	if _, err := parse(armored); err != nil {
		return "", err
	}
	if err := sshsig.Verify(bytes.NewReader(doc), sig, public, sig.HashAlgorithm, namespace); err != nil {
		return "", fmt.Errorf("approval: what holds the key answered a signature that is not its own: %w", err)
	}
	return armored, nil
}

// LoadSigner reads a private key that OpenSSH wrote; others must have no access to the file. If the key is encrypted,
// passphrase is asked, up to three times; nil: nobody can be asked. A path that ends in .pub stands for the private half of
// that key in the ssh-agent at SSH_AUTH_SOCK, which is also the way to keys in hardware.
func LoadSigner(path string, passphrase func() ([]byte, error)) (ssh.Signer, error) {
	if strings.HasSuffix(path, ".pub") {
		line, err := readKeyFile(path, false)
		if err != nil {
			return nil, err
		}
		return AgentSigner(os.Getenv(agentVariable), string(line))
	}
	file, err := readKeyFile(path, true)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(file)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		return unlock(path, file, passphrase)
	}
	if err != nil {
		if _, err := parseKey(string(file)); err == nil {
			return nil, &FieldError{path, "is a public key", "name the private key, or call the file something.pub to have ssh-agent sign"}
		}
		return nil, unreadable(path)
	}
	return usableSigner(path, signer)
}

func unlock(path string, file []byte, passphrase func() ([]byte, error)) (ssh.Signer, error) {
	if passphrase == nil {
		return nil, &FieldError{path, "is encrypted and there is nobody to ask for the passphrase", "add it to ssh-agent with ssh-add, and name " + path + ".pub"}
	}
	for range maxTries {
		phrase, err := passphrase()
		if err != nil {
			return nil, fmt.Errorf("approval: the passphrase of %s: %w", path, err)
		}
		signer, err := ssh.ParsePrivateKeyWithPassphrase(file, phrase)
		clear(phrase)
		if err == nil {
			return usableSigner(path, signer)
		}
		if !errors.Is(err, x509.IncorrectPasswordError) {
			return nil, unreadable(path)
		}
	}
	return nil, &FieldError{path, "is encrypted with another passphrase", "try again, or test it with: ssh-keygen -y -f " + path}
}

func usableSigner(path string, signer ssh.Signer) (ssh.Signer, error) {
	if what, fix := unusable(signer.PublicKey()); what != "" {
		return nil, &FieldError{path, "is " + what, fix}
	}
	return signer, nil
}

// unreadable does not quote the parser, whose words could quote the secret.
func unreadable(path string) error {
	return &FieldError{
		path, "holds no private key that can be read",
		"name a file that ssh-keygen has written; a key in hardware is used by ssh-agent: ssh-add " + path + ", and name " + path + ".pub",
	}
}

// readKeyFile asks the open file who may read it, so that the answer is about the bytes that it reads.
func readKeyFile(path string, secret bool) (data []byte, err error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, &FieldError{path, "is not a regular file", "name the file of a key"}
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("approval: loading a key: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("approval: loading a key: %w", err)
	}
	if mode := info.Mode().Perm(); secret && runtime.GOOS != "windows" && mode&0o077 != 0 {
		return nil, &FieldError{path, fmt.Sprintf("may be opened by others (%v)", mode), "chmod 600 " + path}
	}
	data, err = io.ReadAll(io.LimitReader(file, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("approval: loading a key: %w", err)
	}
	if len(data) > maxKeyFile {
		return nil, &FieldError{path, "is too large for a key", "name the file of a key"}
	}
	return data, nil
}

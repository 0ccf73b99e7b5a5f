package fence

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
)

const (
	pemType = "PRIVATE KEY"
	// maxKeyFile is far above any key in PEM.
	maxKeyFile = 64 << 10
	// secretMode is what a file with a private key may have at most.
	secretMode os.FileMode = 0o600
)

// hasModes is false where file modes do not say who may read.
const hasModes = runtime.GOOS != "windows"

// SaveSigner writes the private key to path as PKCS #8 in PEM, with mode 0600.
// It replaces the file atomically: after a crash path holds the old key or the
// new one, whole. When it returns nil, the key is on disk. The directory must
// exist.
func SaveSigner(path string, s *Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(s.private)
	if err != nil {
		return fmt.Errorf("fence: encoding key %s: %w", s.keyID, err)
	}
	if err := replaceFile(path, pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})); err != nil {
		return fmt.Errorf("fence: saving key %s: %w", s.keyID, err)
	}
	return nil
}

// replaceFile writes data beside path, makes it durable and renames it.
func replaceFile(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	file, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreNotExist(os.Remove(file.Name())))
		}
	}()
	err = errors.Join(writeSynced(file, data), file.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

func writeSynced(file *os.File, data []byte) error {
	// Before the secret goes in, whatever the umask says.
	if err := file.Chmod(secretMode); err != nil && hasModes {
		return err
	}
	if _, err := file.Write(data); err != nil {
		return err
	}
	return file.Sync()
}

// syncDir makes a rename durable. Windows has no such call for directories.
func syncDir(dir string) error {
	if !hasModes {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func ignoreNotExist(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// LoadSigner reads a private key that [SaveSigner] or another tool wrote as
// PKCS #8 in PEM (`openssl genpkey -algorithm ed25519`). A file that group or
// others may read or write is [ErrInvalidKey], except on Windows, where modes
// do not tell; so is one that holds anything but one Ed25519 key. A file that
// cannot be read gives the error of the operating system.
func LoadSigner(path string) (*Signer, error) {
	data, err := readSecret(path)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != pemType || len(bytes.TrimSpace(rest)) > 0 {
		return nil, invalid(ErrInvalidKey, path, "", "must hold one PEM block of type PRIVATE KEY (PKCS #8)")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		// The parser's own words could quote the secret.
		return nil, invalid(ErrInvalidKey, path, "", "does not hold a PKCS #8 private key")
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, invalid(ErrInvalidKey, path, fmt.Sprintf("%T", parsed), "must hold an Ed25519 key: openssl genpkey -algorithm ed25519")
	}
	return NewSigner(private)
}

// readSecret reads a regular file that nobody but its owner may touch. It asks
// the open file, so that the answer is about the bytes that it reads.
func readSecret(path string) (data []byte, err error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, invalid(ErrInvalidKey, path, info.Mode().Type().String(), "must be a regular file")
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("fence: loading key: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("fence: loading key: %w", err)
	}
	if open := info.Mode().Perm() &^ secretMode; hasModes && open&0o077 != 0 {
		return nil, invalid(ErrInvalidKey, path, info.Mode().Perm().String(), "others may open it: chmod 600 "+path)
	}
	data, err = io.ReadAll(io.LimitReader(file, maxKeyFile+1))
	if err != nil {
		return nil, fmt.Errorf("fence: loading key: %w", err)
	}
	if len(data) > maxKeyFile {
		return nil, invalid(ErrInvalidKey, path, "", "is too large for a key")
	}
	return data, nil
}

package breakglass

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/writ-io/writ/region/approval"
)

// MaxFile is the largest file that is taken, in bytes.
const MaxFile = 1 << 20

const maxSignatures = 64

// File is a certificate with its signatures, as it is stored and handed to guards.
type File struct {
	// Document is the certificate exactly as it is signed.
	Document string `json:"document"`
	// Signatures are armored SSHSIG signatures over Document.
	Signatures []string `json:"signatures"`
}

// ParseFile reads a file, and the certificate in it. It does not judge the signatures.
func ParseFile(raw []byte) (File, Certificate, error) {
	var f File
	if len(raw) > MaxFile {
		return f, Certificate{}, fmt.Errorf("breakglass: the file has %d bytes, at most %d are taken", len(raw), MaxFile)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return File{}, Certificate{}, fmt.Errorf("breakglass: the file is no certificate of break-glass: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return File{}, Certificate{}, errors.New("breakglass: something follows the certificate in the file")
	}
	if len(f.Signatures) > maxSignatures {
		return File{}, Certificate{}, fmt.Errorf("breakglass: the file has %d signatures, at most %d are taken", len(f.Signatures), maxSignatures)
	}
	c, err := Parse([]byte(f.Document))
	if err != nil {
		return File{}, Certificate{}, err
	}
	return f, c, nil
}

// Encode writes the file.
func (f File) Encode() ([]byte, error) {
	if f.Signatures == nil {
		f.Signatures = []string{}
	}
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("breakglass: %w", err)
	}
	return append(text, '\n'), nil
}

// Judge says who has signed, if that is enough by the rule of the approvers at that instant. A signature that does not count
// makes the whole file unusable: somebody has changed it, or signed what they should not have.
func (f File) Judge(c Certificate, set *approval.Set, at time.Time) ([]approval.Signer, error) {
	signers, err := f.Signers(set, at)
	if err != nil {
		return nil, err
	}
	if c.ApproversVersion != set.Version() {
		return signers, fmt.Errorf("breakglass: the certificate was planned with version %d of the approvers, and version %d is known here: plan it anew", c.ApproversVersion, set.Version())
	}
	if missing := set.Missing(nil, c.Requester, signers); missing != "" {
		return signers, fmt.Errorf("breakglass: the certificate needs the signature of %s", missing)
	}
	return signers, nil
}

// Signers says who has signed, each person once.
func (f File) Signers(set *approval.Set, at time.Time) ([]approval.Signer, error) {
	var signers []approval.Signer
	for i, armored := range f.Signatures {
		signer, err := set.Verify(Namespace, []byte(f.Document), armored, at)
		if err != nil {
			return nil, fmt.Errorf("breakglass: signatures[%d]: %w", i, err)
		}
		if !slices.ContainsFunc(signers, func(s approval.Signer) bool { return approval.SamePerson(s, signer) }) {
			signers = append(signers, signer)
		}
	}
	return signers, nil
}

package sidecar

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/gate"
	"github.com/writ-io/writ/fence/guard"
	"github.com/writ-io/writ/lease/clock"
	"github.com/writ-io/writ/region/approval/breakglass"
)

const (
	// lookEvery is how often the file for certificates is looked at.
	lookEvery = time.Second
	// mostLooks is after how many looks what was refused is tried again at the latest.
	mostLooks = 8
	// applyTime bounds how long a certificate waits to be durable.
	applyTime = 10 * time.Second
)

// certificateAnswer is what a guard says of a certificate.
type certificateAnswer struct {
	Guard       string    `json:"guard"`
	Certificate string    `json:"certificate,omitempty"`
	Open        bool      `json:"open"`
	Resources   []string  `json:"resources,omitempty"`
	Signers     []string  `json:"signers,omitempty"`
	Expires     time.Time `json:"expires,omitzero"`
	Error       string    `json:"error,omitempty"`
}

// breakGlass hands a certificate to the guard.
func (s *Sidecar) breakGlass(ctx context.Context, raw []byte) certificateAnswer {
	ctx, cancel := context.WithTimeout(ctx, applyTime)
	defer cancel()
	opened, err := s.guard.BreakGlass(ctx, raw)
	v := certificateAnswer{Guard: s.config.Name, Certificate: opened.Certificate.ID, Open: err == nil, Expires: opened.Certificate.Expires}
	for _, signer := range opened.Signers {
		v.Signers = append(v.Signers, signer.Approver+" "+signer.Key)
	}
	if err != nil {
		v.Error = err.Error()
		return v
	}
	v.Resources = opened.Resources
	return v
}

// takeCertificate answers POST /breakglass. Nobody is asked who they are: the signatures say who has decided.
func (s *Sidecar) takeCertificate(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, breakglass.MaxFile))
	if err != nil {
		answer(w, http.StatusRequestEntityTooLarge, certificateAnswer{Guard: s.config.Name, Error: "the body cannot be read: " + err.Error()})
		return
	}
	v := s.breakGlass(r.Context(), raw)
	status := http.StatusOK
	if !v.Open {
		status = http.StatusConflict
	}
	answer(w, status, v)
}

// watchCertificates applies what is put into the file, once each. It ends when the sidecar does.
func (s *Sidecar) watchCertificates(path string) {
	source := clock.System()
	timer := source.NewTimer(source.Now())
	defer timer.Stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-s.ending:
			cancel()
		case <-ctx.Done():
		}
	}()
	look := certificateFile{sidecar: s, path: path}
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C():
		}
		timer.Reset(source.Now().Add(lookEvery))
		look.again(ctx)
	}
}

// certificateFile is what is known of the file for certificates.
type certificateFile struct {
	sidecar    *Sidecar
	path       string
	complained string            // of the file
	last       [sha256.Size]byte // of what was tried
	over       bool              // it was taken, or can never be
	// What was refused is tried again after that many looks, ever fewer of them: it may have come before the guard is known to
	// be cut off.
	wait, looks int
}

// again looks at the file.
func (f *certificateFile) again(ctx context.Context) {
	raw, err := readCertificate(f.path)
	if text := errorText(err); text != f.complained {
		f.complained = text
		if text != "" {
			f.sidecar.logger.Warn("the file for certificates cannot be read", "breakglass_file", f.path, "error", err)
		}
	}
	if err != nil || len(raw) == 0 {
		f.last, f.over = [sha256.Size]byte{}, false
		return
	}
	if digest := sha256.Sum256(raw); digest != f.last {
		f.last, f.over, f.wait, f.looks = digest, false, 1, 0
	}
	if f.looks--; f.over || f.looks > 0 || f.sidecar.status().LeaseLeft > 0 {
		return // nothing opens while there is a quorum
	}
	_, c, err := breakglass.ParseFile(raw)
	v := f.sidecar.breakGlass(ctx, raw)
	f.over = v.Open || err == nil && !c.Expires.After(clock.System().Wall())
	f.looks, f.wait = f.wait, min(2*f.wait, mostLooks)
}

func readCertificate(path string) ([]byte, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(file, breakglass.MaxFile+1))
	return raw, errors.Join(err, file.Close())
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// knownQuorum is what a guard remembers of its quorum, for people who plan a certificate.
type knownQuorum struct {
	Cluster          string `json:"cluster"`
	Incarnation      string `json:"incarnation"`
	Epoch            uint32 `json:"epoch"`
	ApproversVersion uint64 `json:"approvers_version,string"`
}

// opening is what a certificate did here.
type opening struct {
	Certificate string      `json:"certificate"`
	Group       string      `json:"group,omitempty"`
	Resource    string      `json:"resource"`
	Region      string      `json:"region"`
	Token       fence.Token `json:"token"`
	OpenedAt    time.Time   `json:"opened_at"`
	Expires     time.Time   `json:"expires"`
	FirstAt     time.Time   `json:"first_at,omitzero"`
	LastAt      time.Time   `json:"last_at,omitzero"`
	Admitted    uint64      `json:"admitted"`
	// Closed says why; empty: it is in force.
	Closed   string    `json:"closed,omitempty"`
	ClosedAt time.Time `json:"closed_at,omitzero"`
	// Told: the quorum knows.
	Told bool `json:"told"`
}

// floor is the lowest token that the guard admits for a resource.
type floor struct {
	Resource string      `json:"resource"`
	Token    fence.Token `json:"token"`
}

func openings(list []gate.Opening) []opening {
	var shown []opening
	for _, o := range list {
		shown = append(shown, opening{
			Certificate: o.Certificate, Group: o.Group, Resource: o.Resource, Region: o.Region, Token: o.Token, OpenedAt: o.OpenedAt,
			Expires: o.Expires, FirstAt: o.First, LastAt: o.Last, Admitted: o.Admitted, Closed: o.Closed, ClosedAt: o.ClosedAt, Told: o.Told,
		})
	}
	return shown
}

// inForce says for how many resources a certificate is in force.
func inForce(s guard.Status) int {
	n := 0
	for _, o := range s.Openings {
		if o.Closed == "" {
			n++
		}
	}
	return n
}

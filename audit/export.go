package audit

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"iter"
	"time"
)

// Source is what a bundle is made of.
type Source struct {
	Cluster     string
	Incarnation string
	Exported    time.Time
	// Start is the record that the first one continues.
	Start  Head
	Pruned uint64
	// Context is what was carried from before the first record, see Carry.
	Context [][]byte
	// Records answers the records as they are stored, in order, the same whenever it is asked.
	Records iter.Seq[[]byte]
	// Heads are signed heads, and Keys the public keys of the nodes as a JSON Web Key Set.
	Heads []string
	Keys  []byte
}

// Export writes a bundle. It goes over the records three times and keeps none, and does not judge them: whoever verifies the
// bundle has to see what there is.
func Export(w io.Writer, src Source) error {
	var (
		total   int64
		end     = src.Start
		derived = newDerived()
	)
	for _, stored := range src.Context {
		if r, err := Parse(stored); err == nil {
			derived.add(r)
		}
	}
	for stored := range src.Records {
		total += int64(len(stored)) + 1
		r, err := Parse(stored)
		if err != nil {
			r = Record{Sequence: end.Sequence + 1}
		}
		end = HeadOf(r, stored)
		if err == nil {
			derived.add(r)
		}
	}
	if derived.full != nil {
		return derived.full
	}
	approvers, err := derived.approvers()
	if err != nil {
		return err
	}
	manifest, err := encode(Manifest{
		Format: Format, Cluster: src.Cluster, Incarnation: src.Incarnation, Exported: src.Exported.UTC().Round(0),
		Start: src.Start.Position(), End: end.Position(), Pruned: src.Pruned,
	})
	if err != nil {
		return err
	}
	signed, err := encode(heads{Heads: append([]string{}, src.Heads...)})
	if err != nil {
		return err
	}
	compressed := gzip.NewWriter(w)
	b := bundleWriter{tar.NewWriter(compressed)}
	err = errors.Join(
		b.file(fileManifest, manifest), b.file(fileHeads, signed), b.file(fileKeys, src.Keys),
		b.file(fileContext, lines(src.Context)), b.records(total, src.Records), b.files(derived, src),
		b.file(fileApprovers, approvers), b.file(fileSigners, derived.signers.file()),
	)
	return errors.Join(err, b.Close(), compressed.Close())
}

func lines(records [][]byte) []byte {
	var out bytes.Buffer
	for _, stored := range records {
		out.Write(stored)
		out.WriteByte('\n')
	}
	return out.Bytes()
}

type bundleWriter struct{ *tar.Writer }

func (b bundleWriter) header(name string, size int64) error {
	return b.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0)})
}

func (b bundleWriter) file(name string, content []byte) error {
	if err := b.header(name, int64(len(content))); err != nil {
		return err
	}
	_, err := b.Write(content)
	return err
}

func (b bundleWriter) records(total int64, records iter.Seq[[]byte]) error {
	if err := b.header(fileRecords, total); err != nil {
		return err
	}
	for stored := range records {
		if _, err := b.Write(stored); err != nil {
			return err
		}
		if _, err := b.Write([]byte{'\n'}); err != nil {
			return err
		}
	}
	return nil
}

// files writes documents and signatures, those that a later record replaced left out.
func (b bundleWriter) files(d *derived, src Source) error {
	one := func(stored []byte) error {
		r, err := Parse(stored)
		if err != nil {
			return nil // told by whoever verifies
		}
		name, content := fileOf(r)
		if name == "" || d.files[name].sequence != r.Sequence {
			return nil
		}
		return b.file(name, content)
	}
	for _, stored := range src.Context {
		if err := one(stored); err != nil {
			return err
		}
	}
	for stored := range src.Records {
		if err := one(stored); err != nil {
			return err
		}
	}
	return nil
}

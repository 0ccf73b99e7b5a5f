package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/writ-io/writ/fence"
)

// How a bundle's own parts are read, in their order.

// whole reads a small part.
func whole(name string, r io.Reader, size, most int64) ([]byte, error) {
	if size > most {
		return nil, bad(name, 0, "has %d bytes, and %d are the most", size, most)
	}
	data, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, bad(name, 0, "cannot be read: %w", err)
	}
	return data, nil
}

func (b *bundle) readManifest(r io.Reader, size int64) error {
	data, err := whole(fileManifest, r, size, maxManifest)
	if err != nil {
		return err
	}
	if b.manifest, err = decodePart[Manifest](data); err != nil {
		return bad(fileManifest, 0, "cannot be read: %w", err)
	}
	m := b.manifest
	if m.Format != Format {
		return bad(fileManifest, 0, "is of format %.80q, not %q", m.Format, Format)
	}
	start, err := m.Start.head()
	if err != nil {
		return bad(fileManifest, 0, "start: %w", err)
	}
	if _, err := m.End.head(); err != nil {
		return bad(fileManifest, 0, "end: %w", err)
	}
	if m.Pruned > start.Sequence {
		return bad(fileManifest, 0, "begins behind record %d, and says that those up to %d have been pruned", start.Sequence, m.Pruned)
	}
	b.report.Cluster, b.report.Incarnation, b.report.Exported = m.Cluster, m.Incarnation, m.Exported
	b.report.Start, b.report.End, b.report.Pruned = start, start, m.Pruned
	b.ledger.cluster = m.Cluster
	return nil
}

func (b *bundle) readHeads(r io.Reader, size int64) error {
	data, err := whole(fileHeads, r, size, maxHeads)
	if err != nil {
		return err
	}
	in, err := decodePart[heads](data)
	if err != nil {
		return bad(fileHeads, 0, "cannot be read: %w", err)
	}
	if len(in.Heads) > maxHeadsCount {
		return bad(fileHeads, 0, "has %d heads", len(in.Heads))
	}
	b.heads = in.Heads
	return nil
}

// readKeys reads the keys, and with them the heads.
func (b *bundle) readKeys(r io.Reader, size int64) error {
	data, err := whole(fileKeys, r, size, fence.MaxJWKSBytes)
	if err != nil {
		return err
	}
	if b.keys, err = fence.ParseJWKS(data); err != nil {
		return bad(fileKeys, 0, "cannot be read: %w", err)
	}
	keys := b.keys.Merge(b.verifier.Trusted)
	for i, signed := range b.heads {
		h, keyID, err := VerifyHead(keys, signed)
		if err != nil {
			return bad(fileHeads, 0, "head %d: %w", i+1, err)
		}
		if h.Cluster != b.manifest.Cluster {
			return bad(fileHeads, h.Head.Sequence, "node %s signed it for cluster %.80q", shown(h.Node), h.Cluster)
		}
		state := HeadBeyond
		switch {
		case h.Head.Is(b.report.Start):
			state = HeadOnChain
		case h.Head.Sequence == b.report.Start.Sequence && h.Incarnation == b.manifest.Incarnation:
			return bad(fileHeads, h.Head.Sequence, "node %s signed another record there than the one that the bundle continues", shown(h.Node))
		case h.Head.Sequence <= b.report.Start.Sequence:
			state = HeadBefore
		}
		b.report.Heads = append(b.report.Heads, HeadReport{
			Node: h.Node, Sequence: h.Head.Sequence, Key: keyID, At: h.At, State: state, Trusted: b.verifier.Trusted.Has(keyID), head: h,
		})
		if state == HeadOnChain {
			b.cover(b.report.Heads[len(b.report.Heads)-1])
		}
	}
	return nil
}

// cover notes a head that is on the chain.
func (b *bundle) cover(h HeadReport) {
	if h.Trusted || b.verifier.Trusted.Len() == 0 {
		b.report.Covered = max(b.report.Covered, h.Sequence)
	}
}

// eachLine reads lines, each of which ends.
func eachLine(name string, r io.Reader, f func(line []byte) error) error {
	in := bufio.NewReaderSize(r, 64<<10)
	var line []byte
	for {
		piece, err := in.ReadSlice('\n')
		line = append(line, piece...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull) && len(line) <= maxLine:
			continue
		case len(line) > maxLine:
			return bad(name, 0, "has a line of more than %d bytes", maxLine)
		case errors.Is(err, io.EOF) && len(line) == 0:
			return nil
		case err != nil:
			return bad(name, 0, "breaks off: %w", err)
		}
		if err := f(line[:len(line)-1]); err != nil {
			return err
		}
		line = line[:0]
	}
}

// readContext takes in what the records refer to. The chain of this bundle does not vouch for it; that of an earlier one does.
func (b *bundle) readContext(r io.Reader, size int64) error {
	if size > maxContext {
		return bad(fileContext, 0, "has %d bytes, and %d are the most", size, int64(maxContext))
	}
	last := uint64(0)
	b.ledger.context = true
	defer func() { b.ledger.context, b.report.StartApprovers = false, b.report.LastApprovers }()
	err := eachLine(fileContext, r, func(line []byte) error {
		rec, err := Parse(line)
		if err != nil {
			return bad(fileContext, 0, "cannot be read behind record %d: %w", last, err)
		}
		if rec.Sequence <= last || rec.Sequence > b.report.Start.Sequence {
			return bad(fileContext, rec.Sequence, "is not in order, or not from before the first record")
		}
		last = rec.Sequence
		b.report.Context++
		b.derived.add(rec)
		if err := b.ledger.add(rec); err != nil {
			return bad(fileContext, rec.Sequence, "%w", err)
		}
		return nil
	})
	if err == nil && b.report.Context > 0 {
		b.report.unchecked(fmt.Sprintf("%d records of %s are from before the first one: the chain of this bundle does not vouch for them", b.report.Context, fileContext))
	}
	return err
}

func (b *bundle) readRecords(r io.Reader, _ int64) error {
	at := b.report.Start
	err := eachLine(fileRecords, r, func(line []byte) error {
		rec, head, err := Verify(at, line)
		if err != nil {
			return b.notContinued(at, err)
		}
		at = head
		b.report.End = head
		b.report.Records++
		if b.report.First.IsZero() {
			b.report.First = rec.At
		}
		b.report.Last = rec.At
		if err := b.record(rec, head); err != nil {
			return err
		}
		if b.verifier.Each != nil {
			b.verifier.Each(rec)
		}
		return nil
	})
	if err != nil {
		return err
	}
	end, _ := b.manifest.End.head() // it has been read
	if !at.Is(end) {
		return bad(fileRecords, at.Sequence, "the manifest says that the last record is %d with the hash %s, and it is %d with the hash %x",
			end.Sequence, b.manifest.End.Hash, at.Sequence, at.Hash)
	}
	if b.ledger.settled() != nil {
		b.report.unchecked(fmt.Sprintf("record %d: what the operation executed there changes stands in later records", at.Sequence))
	}
	return b.judgeHeads()
}

// notContinued says which of two records does not fit. A record whose content was changed shows at the one behind it.
func (b *bundle) notContinued(at Head, err error) error {
	return bad(fileRecords, at.Sequence+1, "%w (either it, or record %d, has been changed, or records between them are missing)", err, at.Sequence)
}

func (b *bundle) record(rec Record, head Head) error {
	for i := range b.report.Heads {
		h := &b.report.Heads[i]
		if h.Sequence != head.Sequence || h.State != HeadBeyond {
			continue
		}
		switch {
		case bytes.Equal(h.head.Head.Hash, head.Hash):
			h.State = HeadOnChain
			b.cover(*h)
		case h.head.Incarnation == b.manifest.Incarnation:
			return bad(fileRecords, head.Sequence, "node %s signed another record there, with the hash %x: the log has been changed", shown(h.Node), h.head.Head.Hash)
		default:
			h.State = HeadForked
		}
	}
	if rec.Action == ActionRaiseEpoch && len(b.report.Forks) < maxForks {
		b.report.Forks = append(b.report.Forks, Fork{
			Sequence: rec.Sequence, At: rec.At, Reason: rec.Reason, Incarnation: rec.Detail["incarnation"], Epoch: rec.Detail["to"],
		})
	}
	b.derived.add(rec)
	if err := b.ledger.add(rec); err != nil {
		return bad(fileRecords, rec.Sequence, "%s of %s: %w", shown(rec.Action), shown(rec.Target), err)
	}
	return nil
}

// judgeHeads looks at what became of the heads: one of another history has to be explained by a rebuild.
func (b *bundle) judgeHeads() error {
	last := b.manifest.Incarnation
	if n := len(b.report.Forks); n > 0 {
		last = b.report.Forks[n-1].Incarnation
	}
	for _, h := range b.report.Heads {
		if h.State == HeadForked && (len(b.report.Forks) == 0 || h.head.Incarnation == last) {
			return bad(fileHeads, h.Sequence, "node %s signed another record there, in incarnation %.80q, and no rebuild is recorded", shown(h.Node), h.head.Incarnation)
		}
	}
	if b.report.Covered < b.report.End.Sequence {
		b.report.unchecked(fmt.Sprintf("records %d to %d are not covered by a signed head yet", b.report.Covered+1, b.report.End.Sequence))
	}
	return nil
}

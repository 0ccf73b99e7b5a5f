package floors

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
)

// The database trusts its file: it maps it, and follows whatever numbers stand in it. A file that was damaged would make it
// panic in a goroutine of its own, loop, or read beyond the file, which ends the process. So a store is walked here first, with
// ordinary reads and every number checked, and the database gets to see it only if every page is where it must be.
//
// The layout is that of bbolt's file format 2, of which only what a store of floors needs is accepted.

const (
	pageHeader  = 16 // id 8, flags 2, count 2, overflow 4
	pageElement = 16

	branchPage   = 0x01
	leafPage     = 0x02
	freelistPage = 0x10

	metaBytes    = 64
	metaMagic    = 0xED0CDAED
	metaVersion  = 2
	bucketHeader = 16 // root 8, sequence 8
	bucketFlag   = 0x01

	minPageSize = 1 << 10
	maxPageSize = 1 << 16

	// maxDepth bounds the height of a tree: pages hold two keys or more.
	maxDepth = 64
)

var native = binary.NativeEndian

// inspector walks one file.
type inspector struct {
	file     io.ReaderAt
	size     int64
	pageSize uint64
	pages    uint64              // number of pages that may be used
	used     map[uint64]struct{} // that have been met
	names    [][]byte            // of the buckets
}

// meta is the root of everything.
type meta struct {
	pageSize             uint64
	root, freelist, high uint64
	transaction          uint64
}

// inspect reports why the file cannot be opened as a store.
func inspect(file io.ReaderAt, size int64) error {
	m, err := findMeta(file, size)
	if err != nil {
		return err
	}
	if m.high < 4 || m.high > uint64(size)/m.pageSize {
		return fmt.Errorf("%w: it has %d bytes but holds %d pages of %d bytes: it was cut short", ErrDamaged, size, m.high, m.pageSize)
	}
	in := &inspector{
		file: file, size: size, pageSize: m.pageSize, pages: m.high, used: map[uint64]struct{}{0: {}, 1: {}},
	}
	if err := in.walk(m.root, tree{buckets: true}, 0); err != nil {
		return err
	}
	for _, want := range [][]byte{stateBucket, floorsBucket} {
		if !contains(in.names, want) {
			return fmt.Errorf("%w but another database: it has no bucket %q", ErrForeign, want)
		}
	}
	if len(in.names) != 2 {
		return fmt.Errorf("%w but another database: it has %d buckets", ErrForeign, len(in.names))
	}
	return in.freelist(m.freelist)
}

// findMeta returns the newer one of the two that is sound.
func findMeta(file io.ReaderAt, size int64) (meta, error) {
	if size < 2*minPageSize {
		return meta{}, fmt.Errorf("%w: it has only %d bytes", ErrDamaged, size)
	}
	first, err0 := readMeta(file, 0)
	if err0 == nil {
		if second, err := readMeta(file, int64(first.pageSize)); err == nil && second.pageSize == first.pageSize &&
			second.transaction > first.transaction {
			return second, nil
		}
		return first, nil
	}
	for pageSize := int64(minPageSize); pageSize <= maxPageSize; pageSize *= 2 {
		if second, err := readMeta(file, pageSize); err == nil && int64(second.pageSize) == pageSize {
			return second, nil
		}
	}
	return meta{}, err0
}

func readMeta(file io.ReaderAt, at int64) (meta, error) {
	b := make([]byte, metaBytes)
	if _, err := file.ReadAt(b, at+pageHeader); err != nil {
		return meta{}, fmt.Errorf("%w: reading its head: %w", ErrDamaged, err)
	}
	if native.Uint32(b) != metaMagic {
		return meta{}, fmt.Errorf("%w: it does not begin like one", ErrForeign)
	}
	if v := native.Uint32(b[4:]); v != metaVersion {
		return meta{}, fmt.Errorf("%w: its database has format %d instead of %d", ErrForeign, v, metaVersion)
	}
	sum := fnv.New64a()
	_, _ = sum.Write(b[:56]) // a hash never fails
	if sum.Sum64() != native.Uint64(b[56:]) {
		return meta{}, fmt.Errorf("%w: the checksum of its head does not match", ErrDamaged)
	}
	m := meta{
		pageSize: uint64(native.Uint32(b[8:])),
		root:     native.Uint64(b[16:]), freelist: native.Uint64(b[32:]), high: native.Uint64(b[40:]),
		transaction: native.Uint64(b[48:]),
	}
	if m.pageSize < minPageSize || m.pageSize > maxPageSize || m.pageSize&(m.pageSize-1) != 0 {
		return meta{}, fmt.Errorf("%w: it has pages of %d bytes", ErrForeign, m.pageSize)
	}
	return m, nil
}

// tree is what is expected of a page: whether it holds buckets, and which keys it may hold: from first on and before end; nil
// is no bound.
type tree struct {
	buckets    bool
	first, end []byte
}

// page reads a page with its overflow and marks it as used.
func (in *inspector) page(id uint64) ([]byte, error) {
	if id < 2 || id >= in.pages {
		return nil, in.bad(id, "does not exist")
	}
	header := make([]byte, pageHeader)
	if _, err := in.file.ReadAt(header, int64(id*in.pageSize)); err != nil {
		return nil, in.bad(id, "cannot be read: "+err.Error())
	}
	more := uint64(native.Uint32(header[12:]))
	if native.Uint64(header) != id || more >= in.pages-id {
		return nil, in.bad(id, "is not where it says")
	}
	for i := id; i <= id+more; i++ {
		if _, twice := in.used[i]; twice {
			return nil, in.bad(i, "is used twice")
		}
		in.used[i] = struct{}{}
	}
	content := make([]byte, (more+1)*in.pageSize)
	if _, err := in.file.ReadAt(content, int64(id*in.pageSize)); err != nil {
		return nil, in.bad(id, "cannot be read: "+err.Error())
	}
	return content, nil
}

func (in *inspector) bad(id uint64, what string) error {
	return fmt.Errorf("%w: page %d %s", ErrDamaged, id, what)
}

// walk checks the pages of a tree from this one down.
func (in *inspector) walk(id uint64, want tree, depth int) error {
	if depth > maxDepth {
		return in.bad(id, "is too deep")
	}
	content, err := in.page(id)
	if err != nil {
		return err
	}
	switch native.Uint16(content[8:]) {
	case branchPage:
		return in.branch(id, content, want, depth)
	case leafPage:
		return in.leaf(id, content, want)
	}
	return in.bad(id, "is of the wrong kind")
}

func (in *inspector) branch(id uint64, content []byte, want tree, depth int) error {
	count := uint64(native.Uint16(content[10:]))
	if count == 0 {
		return in.bad(id, "is empty")
	}
	keys, children := make([][]byte, count), make([]uint64, count)
	for i := range count {
		at := pageHeader + i*pageElement
		if at+pageElement > uint64(len(content)) {
			return in.bad(id, "has too many elements")
		}
		e := content[at:]
		key, ok := part(content, at, count-i, native.Uint32(e), native.Uint32(e[4:]), 0)
		if !ok || !want.holds(key) || i > 0 && bytes.Compare(keys[i-1], key) >= 0 {
			return in.bad(id, fmt.Sprintf("has a bad element %d", i))
		}
		keys[i], children[i] = key, native.Uint64(e[8:])
	}
	for i, child := range children {
		below := tree{buckets: want.buckets, first: keys[i], end: want.end}
		if i+1 < len(keys) {
			below.end = keys[i+1]
		}
		if err := in.walk(child, below, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (in *inspector) leaf(id uint64, content []byte, want tree) error {
	count := uint64(native.Uint16(content[10:]))
	var before []byte
	for i := range count {
		at := pageHeader + i*pageElement
		if at+pageElement > uint64(len(content)) {
			return in.bad(id, "has too many elements")
		}
		e := content[at:]
		flags, keySize, valueSize := native.Uint32(e), native.Uint32(e[8:]), native.Uint32(e[12:])
		both, ok := part(content, at, count-i, native.Uint32(e[4:]), keySize, valueSize)
		if !ok || flags > bucketFlag {
			return in.bad(id, fmt.Sprintf("has a bad element %d", i))
		}
		key, value := both[:keySize], both[keySize:]
		if !want.holds(key) || i > 0 && bytes.Compare(before, key) >= 0 {
			return in.bad(id, fmt.Sprintf("has element %d out of order", i))
		}
		before = key
		if isBucket := flags == bucketFlag; isBucket != want.buckets {
			return fmt.Errorf("%w but another database: %q is not what it is there", ErrForeign, shorten(string(key)))
		}
		if want.buckets {
			if err := in.bucket(id, key, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// bucket checks what a bucket holds: a page of its own, or one within the value.
func (in *inspector) bucket(id uint64, name, value []byte) error {
	in.names = append(in.names, name)
	if len(value) < bucketHeader {
		return in.bad(id, "has a bad bucket")
	}
	if root := native.Uint64(value); root != 0 {
		return in.walk(root, tree{}, 0)
	}
	inline := value[bucketHeader:]
	if len(inline) < pageHeader || native.Uint16(inline[8:]) != leafPage {
		return in.bad(id, "has a bad bucket")
	}
	return in.leaf(id, inline, tree{})
}

// freelist checks that no page is free and used.
func (in *inspector) freelist(id uint64) error {
	content, err := in.page(id)
	if err != nil {
		return err
	}
	if native.Uint16(content[8:]) != freelistPage {
		return in.bad(id, "is of the wrong kind")
	}
	count, list := uint64(native.Uint16(content[10:])), content[pageHeader:]
	if count == 0xFFFF {
		count, list = native.Uint64(list), list[8:]
	}
	if count > uint64(len(list))/8 {
		return in.bad(id, "lists too many free pages")
	}
	var before uint64
	for i := range count {
		free := native.Uint64(list[8*i:])
		if _, used := in.used[free]; used || free < 2 || free >= in.pages || free <= before {
			return in.bad(id, fmt.Sprintf("lists page %d as free", free))
		}
		before = free
	}
	return nil
}

// holds reports whether a key may stand where the tree has it.
func (t tree) holds(key []byte) bool {
	return len(key) > 0 && bytes.Compare(key, t.first) >= 0 && (t.end == nil || bytes.Compare(key, t.end) < 0)
}

// part returns key and value of the element at a position of a page. Elements after it must not overlap them.
func part(content []byte, at, elements uint64, offset, keySize, valueSize uint32) ([]byte, bool) {
	begin := at + uint64(offset)
	end := begin + uint64(keySize) + uint64(valueSize)
	if uint64(offset) < elements*pageElement || end > uint64(len(content)) {
		return nil, false
	}
	return content[begin:end], true
}

func contains(names [][]byte, want []byte) bool {
	for _, name := range names {
		if bytes.Equal(name, want) {
			return true
		}
	}
	return false
}

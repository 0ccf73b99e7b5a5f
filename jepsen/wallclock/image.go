//go:build linux

package wallclock

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// code is what the function jumps to: data, and instructions for amd64.
//
//	 0  seconds      not 0: the clock stands still here
//	 8  nanoseconds
//	16  skew         seconds that are added
//	24  mark
//	32  the code:
//	    clock_gettime(clock, time) by the kernel;
//	    if it failed, or clock is neither CLOCK_REALTIME nor CLOCK_REALTIME_COARSE: return;
//	    if seconds is not 0: time = {seconds, nanoseconds}, else time.seconds += skew;
//	    return
var code = []byte{
	0, 0, 0, 0, 0, 0, 0, 0,
	0, 0, 0, 0, 0, 0, 0, 0,
	0, 0, 0, 0, 0, 0, 0, 0,
	'w', 'r', 'i', 't', '-', 'n', 'o', 'w',
	0x56,                   // push rsi
	0x57,                   // push rdi
	0xb8, 0xe4, 0x00, 0, 0, // mov eax, 228
	0x0f, 0x05, // syscall
	0x5f,       // pop rdi
	0x5e,       // pop rsi
	0x85, 0xc0, // test eax, eax
	0x75, 0x2e, // jne return
	0x85, 0xff, // test edi, edi
	0x74, 0x05, // je real
	0x83, 0xff, 0x05, // cmp edi, 5
	0x75, 0x25, // jne return
	0x48, 0x8b, 0x15, 0xc1, 0xff, 0xff, 0xff, // real: mov rdx, [seconds]
	0x48, 0x85, 0xd2, // test rdx, rdx
	0x74, 0x0f, // je skewed
	0x48, 0x89, 0x16, // mov [rsi], rdx
	0x48, 0x8b, 0x15, 0xba, 0xff, 0xff, 0xff, // mov rdx, [nanoseconds]
	0x48, 0x89, 0x56, 0x08, // mov [rsi+8], rdx
	0xc3,                                     // ret
	0x48, 0x8b, 0x15, 0xb6, 0xff, 0xff, 0xff, // skewed: mov rdx, [skew]
	0x48, 0x01, 0x16, // add [rsi], rdx
	0xc3, // return: ret
}

// Where things are in code.
const (
	atSeconds     = 0
	atNanoseconds = 8
	atSkew        = 16
	atMark        = 24
	atEntry       = 32
	// jumpSize is how many bytes of the function are overwritten.
	jumpSize = 5
)

// image is the page of a process that has the function.
type image struct {
	function int64 // its address
	code     int64 // where the code is, or goes
	patched  bool
}

// inspect finds the function in the memory of a process.
func inspect(pid int, mem *os.File) (image, error) {
	start, end, err := mapping(pid)
	if err != nil {
		return image{}, err
	}
	page := make([]byte, end-start)
	if _, err := mem.ReadAt(page, start); err != nil {
		return image{}, fmt.Errorf("wallclock: read the vDSO of process %d: %w", pid, err)
	}
	offset, at, err := layOut(page)
	if err != nil {
		return image{}, err
	}
	return image{
		function: start + offset, code: start + at,
		patched: bytes.Equal(page[at+atMark:at+atEntry], code[atMark:atEntry]),
	}, nil
}

// A process that has only just been started may have no vDSO yet: the kernel lets go of whoever started it a moment before.
const mapTime, mapLook = 2 * time.Second, 5 * time.Millisecond

// mapping is where the vDSO of a process is.
func mapping(pid int) (start, end int64, err error) {
	for left := mapTime; ; left -= mapLook {
		maps, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "maps"))
		if err != nil {
			return 0, 0, fmt.Errorf("wallclock: %w", err)
		}
		for line := range strings.Lines(string(maps)) {
			if !strings.HasSuffix(strings.TrimSpace(line), "[vdso]") {
				continue
			}
			if _, err := fmt.Sscanf(line, "%x-%x", &start, &end); err != nil {
				return 0, 0, fmt.Errorf("wallclock: %q: %w", line, err)
			}
			return start, end, nil
		}
		if left <= 0 {
			return 0, 0, fmt.Errorf("wallclock: process %d has no vDSO", pid)
		}
		time.Sleep(mapLook)
	}
}

// layOut finds the function in an image, and room for the code at its end, or the code itself.
func layOut(page []byte) (function, at int64, err error) {
	file, err := elf.NewFile(bytes.NewReader(page))
	if err != nil {
		return 0, 0, fmt.Errorf("wallclock: the vDSO: %w", err)
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		return 0, 0, fmt.Errorf("wallclock: the vDSO: %w", err)
	}
	at = int64(len(page)-len(code)) &^ 7
	for _, s := range symbols {
		if s.Name != "__vdso_clock_gettime" || s.Value+jumpSize > uint64(at) {
			continue
		}
		free := bytes.Equal(page[at+atMark:at+atEntry], code[atMark:atEntry]) || len(bytes.Trim(page[at:], "\x00")) == 0
		if !free {
			return 0, 0, errors.New("wallclock: the vDSO has no room at its end")
		}
		return int64(s.Value), at, nil
	}
	return 0, 0, errors.New("wallclock: the vDSO has no __vdso_clock_gettime")
}

// jump is the instruction that leads from the function to the code.
func (i image) jump() []byte {
	b := []byte{0xe9, 0, 0, 0, 0}
	binary.LittleEndian.PutUint32(b[1:], uint32(i.code+atEntry-(i.function+jumpSize)))
	return b
}

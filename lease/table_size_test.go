package lease

import (
	"testing"
	"unsafe"
)

// There may be a hundred thousand: 112 bytes is a size in which memory is handed out, and the next one is 128.
func TestEntryIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(entry{}); size > 112 {
		t.Errorf("an entry takes %d bytes, more than 112: put what few resources need into extra", size)
	}
}

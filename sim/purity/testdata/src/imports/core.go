package imports

import (
	_ "context"     // want `core: must not import context: cancellation is an event`
	_ "crypto/rand" // want `core: must not import crypto/rand`
	"fmt"
	_ "hash/maphash" // want `core: must not import hash/maphash`
	_ "io"           // want `core: must not import io: a core does no I/O`
	_ "io/fs"        // want `core: must not import io/fs`
	"iter"
	_ "log/slog"     // want `core: must not import log/slog: a core returns effects`
	_ "math/rand"    // want `core: must not import math/rand: random numbers are inputs`
	_ "math/rand/v2" // want `core: must not import math/rand/v2`
	_ "net/netip"    // want `core: must not import net/netip`
	_ "os"           // want `core: must not import os:`
	_ "reflect"      // want `core: must not import reflect: it leaks map order`
	_ "runtime"      // want `core: must not import runtime`
	_ "sync"         // want `core: must not import sync: one goroutine owns a core`
	_ "sync/atomic"  // want `core: must not import sync/atomic`
	_ "unsafe"       // want `core: must not import unsafe`

	_ "github.com/google/uuid"                        // want `core: must not import github.com/google/uuid: a core imports only the standard library`
	_ "google.golang.org/protobuf/encoding/protojson" // want `core: must not import .*protojson: its output varies by design`
	"google.golang.org/protobuf/proto"
)

//writ:core

func impure(seq iter.Seq[int]) {
	_, _ = proto.Marshal(nil) // want `core: must not use proto.Marshal: encode with proto.MarshalOptions`
	fmt.Println()             // want `core: must not use fmt.Println: a core does no I/O`
	println()                 // want `core: println: a core does no I/O`
	_, _ = iter.Pull(seq)     // want `core: must not use iter.Pull: it starts a coroutine`
}

func pure() {
	_, _ = proto.MarshalOptions{Deterministic: true}.Marshal(nil)
	_ = fmt.Sprint()
}

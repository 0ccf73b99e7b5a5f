package purity

import (
	"go/types"
	"strings"
)

const (
	module        = "github.com/writ-io/writ"
	clockPackage  = module + "/lease/clock"
	protoPackage  = "google.golang.org/protobuf"
	btreePackage  = "github.com/google/btree"
	deterministic = "encode with proto.MarshalOptions{Deterministic: true}"
	clockIsEvent  = "the time is an input: take it from the event"
)

// deniedImports names packages that a core must not import, each with the
// packages below it, and why.
var deniedImports = map[string]string{
	"C":            "a core is Go",
	"context":      "cancellation is an event",
	"crypto/rand":  "random numbers are inputs",
	"database/sql": "a core does no I/O",
	"hash/maphash": "its seed is random",
	"io":           "a core does no I/O",
	"log":          "a core returns effects, its shell logs",
	"math/rand":    "random numbers are inputs",
	"net":          "a core does no I/O",
	"os":           "a core does no I/O",
	"plugin":       "a core is complete",
	"reflect":      "it leaks map order",
	"runtime":      "a core does not see the scheduler",
	"sync":         "one goroutine owns a core",
	"syscall":      "a core does no I/O",
	"testing":      "a core is production code",
	"unsafe":       "memory layout is not an input",

	protoPackage + "/encoding/protojson": "its output varies by design",
	protoPackage + "/encoding/prototext": "its output varies by design",
}

// allowedModules are those that a core may import packages from, besides the
// standard library. The tree locks the list of free nodes that clones share,
// which no result depends on, and does nothing else that a core must not do.
var allowedModules = []string{module, protoPackage, btreePackage}

// deniedNames names package-level objects and methods that a core must not use
// although it may import their package, and why.
var deniedNames = map[string]map[string]string{
	"fmt": {
		"Print": "a core does no I/O", "Printf": "a core does no I/O", "Println": "a core does no I/O",
		"Scan": "a core does no I/O", "Scanf": "a core does no I/O", "Scanln": "a core does no I/O",
	},
	"iter": {"Pull": "it starts a coroutine", "Pull2": "it starts a coroutine"},
	"time": {
		"Now": clockIsEvent, "Since": clockIsEvent, "Until": clockIsEvent,
		"Sleep": "a core waits by returning a deadline", "After": "a core waits by returning a deadline",
		"AfterFunc": "a core waits by returning a deadline", "NewTimer": "a core waits by returning a deadline",
		"NewTicker": "a core waits by returning a deadline", "Tick": "a core waits by returning a deadline",
		"Local": "the time zone is the machine's", "LoadLocation": "it reads files",
	},
	clockPackage: {
		"Clock": clockIsEvent, "Timer": clockIsEvent, "Manual": clockIsEvent, "NewManual": clockIsEvent,
		"System": clockIsEvent, "Monotonic": clockIsEvent,
		"Now": clockIsEvent, "Wall": clockIsEvent, "NewTimer": clockIsEvent,
	},
	protoPackage + "/proto": {"Marshal": deterministic, "MarshalAppend": deterministic},
}

// deniedImport tells why a core must not import the package, or "".
func deniedImport(path string) string {
	for denied, why := range deniedImports {
		if within(path, denied) {
			return why
		}
	}
	if first, _, _ := strings.Cut(path, "/"); !strings.Contains(first, ".") {
		return "" // the standard library
	}
	for _, allowed := range allowedModules {
		if within(path, allowed) {
			return ""
		}
	}
	return "a core imports only the standard library, this module, " + protoPackage + " and " + btreePackage
}

// within tells whether path is the package parent or below it.
func within(path, parent string) bool {
	return path == parent || strings.HasPrefix(path, parent+"/")
}

// deniedName tells why a core must not use the object, or "".
//
// Package lease/clock is alone in having methods denied: those of other
// packages (time.Time.After, MarshalOptions.Marshal) are pure namesakes.
func deniedName(obj types.Object) string {
	path := obj.Pkg().Path()
	if path != clockPackage && !isPackageLevel(obj) {
		return ""
	}
	return deniedNames[path][obj.Name()]
}

func isPackageLevel(obj types.Object) bool {
	return obj.Pkg() != nil && obj.Parent() == obj.Pkg().Scope()
}

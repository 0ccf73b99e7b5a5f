// Command writ-guard stands before a storage and refuses writes with a stale token.
package main

import (
	"os"
	"runtime/debug"

	"github.com/writ-io/writ/cmd/writ-guard/sidecar"
	"github.com/writ-io/writ/cmd/writ-guard/sqlcmd"
)

// version is set by the linker.
var version = ""

func main() {
	if version == "" {
		version = "dev"
		if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
			version = info.Main.Version
		}
	}
	os.Exit(sidecar.Main(version, os.Args[1:], sqlcmd.Command()))
}

// Command writ runs and operates a quorum that hands out leases and fencing tokens, and works under them.
package main

import (
	"os"
	"runtime/debug"

	"github.com/writ-io/writ/cmd/writ/cli"
	"github.com/writ-io/writ/cmd/writ/node"
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
	os.Exit(cli.Main(version, os.Args[1:], node.Commands(version), node.QuorumCommands(version)))
}

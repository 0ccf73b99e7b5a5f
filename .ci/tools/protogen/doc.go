// Command protogen generates Go code from the .proto files under one root,
// with nothing but the Go toolchain: the compiler is a library, and the
// imports that do not belong to this repository (google/api, google/rpc,
// google/protobuf, buf/validate) are resolved from the descriptors that the
// Go packages linked into this program register.
//
// That has a consequence worth knowing: the imported definitions are exactly
// those of the Go modules named in go.mod, so an import cannot drift from the
// Go package that the generated code will import.
//
// Usage:
//
//	protogen -plugins DIR [-dir api] [-check]
//
// Without -check the generated files are written beside their sources, and
// generated files whose source is gone are removed. With -check nothing is
// written; every missing, stale or extra file is named and the exit code is 1.
package main

package purity

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/packages"
)

// Analyzer reports the rules that the core files of a package break.
var Analyzer = &analysis.Analyzer{
	Name: "purity",
	Doc:  "reject goroutines, locks, clocks, randomness, I/O and map order in files marked //writ:core",
	URL:  "https://pkg.go.dev/github.com/writ-io/writ/sim/purity",
	Run: func(pass *analysis.Pass) (any, error) {
		inspect(pass.Fset, pass.Files, pass.Pkg, pass.TypesInfo, pass.Report)
		return nil, nil
	},
}

// LoadMode is what [Check] needs to know about a package.
const LoadMode = packages.NeedName | packages.NeedFiles | packages.NeedCompiledGoFiles |
	packages.NeedImports | packages.NeedTypes | packages.NeedSyntax | packages.NeedTypesInfo

// Check runs the analyzer over one package that was loaded with [LoadMode] and
// returns what it found, one "file:line:column: message" each. A package that
// does not compile is an error: its types cannot be trusted.
//
// The drivers of go/analysis type-check all dependencies from source, since
// analyzers may exchange facts; this one exchanges none, and export data is
// quicker to read.
func Check(pkg *packages.Package) ([]string, error) {
	if len(pkg.Errors) > 0 {
		return nil, fmt.Errorf("load %s: %w", pkg.PkgPath, pkg.Errors[0])
	}
	var found []string
	inspect(pkg.Fset, pkg.Syntax, pkg.Types, pkg.TypesInfo, func(d analysis.Diagnostic) {
		found = append(found, fmt.Sprintf("%s: %s", pkg.Fset.Position(d.Pos), d.Message))
	})
	return found, nil
}

// inspector holds what the rules need to know about the package at hand.
type inspector struct {
	fset *token.FileSet
	pkg  *types.Package
	info *types.Info
	core map[string]bool // names of the core files
	emit func(analysis.Diagnostic)
}

func inspect(fset *token.FileSet, files []*ast.File, pkg *types.Package, info *types.Info, emit func(analysis.Diagnostic)) {
	in := &inspector{fset: fset, pkg: pkg, info: info, core: make(map[string]bool), emit: emit}
	for _, file := range files {
		in.checkCoreDirective(file)
		if IsCore(fset, file) {
			in.core[in.filename(file.FileStart)] = true
		}
	}
	for _, file := range files {
		if in.core[in.filename(file.FileStart)] {
			in.checkFile(file)
		}
	}
}

func (in *inspector) checkFile(file *ast.File) {
	in.checkImports(file)
	for _, decl := range file.Decls {
		in.checkDecl(decl)
	}
	w := &walk{inspector: in, unordered: in.unorderedComments(file), imported: importedPaths(file)}
	ast.Inspect(file, w.visit)
	for _, comment := range w.unordered.all {
		if !comment.used {
			in.report(comment.pos, "%s excuses nothing: it must stand directly above a range over a map", unorderedDirective)
		}
	}
}

func (in *inspector) report(pos token.Pos, format string, args ...any) {
	in.emit(analysis.Diagnostic{Pos: pos, Message: "core: " + fmt.Sprintf(format, args...)})
}

func (in *inspector) filename(pos token.Pos) string { return in.fset.PositionFor(pos, false).Filename }

func (in *inspector) line(pos token.Pos) int { return in.fset.PositionFor(pos, false).Line }

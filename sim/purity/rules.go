package purity

import (
	"go/ast"
	"go/token"
	"go/types"
	"path/filepath"
	"strconv"
	"strings"
)

func importedPaths(file *ast.File) map[string]bool {
	paths := make(map[string]bool)
	for _, spec := range file.Imports {
		if path, err := strconv.Unquote(spec.Path.Value); err == nil {
			paths[path] = true
		}
	}
	return paths
}

func (in *inspector) checkImports(file *ast.File) {
	for _, spec := range file.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue // the compiler says it better
		}
		if why := deniedImport(path); why != "" {
			in.report(spec.Pos(), "must not import %s: %s", path, why)
		}
	}
}

// checkDecl rejects state outside of the core's struct.
func (in *inspector) checkDecl(decl ast.Decl) {
	switch decl := decl.(type) {
	case *ast.FuncDecl:
		if decl.Recv == nil && decl.Name.Name == "init" {
			in.report(decl.Pos(), "func init runs before the first event")
		}
	case *ast.GenDecl:
		for _, spec := range decl.Specs {
			value, ok := spec.(*ast.ValueSpec)
			if !ok || decl.Tok != token.VAR {
				continue
			}
			for i, name := range value.Names {
				if name.Name != "_" && !in.isSentinel(name, value, i) {
					in.report(name.Pos(), "package-level variable %s is state outside of the core", name.Name)
				}
			}
		}
	}
}

// isSentinel tells whether the i-th name of spec is an error made by errors.New
// or fmt.Errorf: a constant in all but name.
func (in *inspector) isSentinel(name *ast.Ident, spec *ast.ValueSpec, i int) bool {
	obj := in.info.Defs[name]
	if obj == nil || !isError(obj.Type()) || len(spec.Values) != len(spec.Names) {
		return false
	}
	value := ast.Unparen(spec.Values[i])
	// A variable of type error that holds &T{…} can be compared with and not changed through.
	if address, ok := value.(*ast.UnaryExpr); ok && address.Op == token.AND {
		_, literal := ast.Unparen(address.X).(*ast.CompositeLit)
		return literal
	}
	call, ok := value.(*ast.CallExpr)
	if !ok {
		return false
	}
	callee := in.callee(call)
	return isFunc(callee, "errors", "New") || isFunc(callee, "fmt", "Errorf")
}

func isError(t types.Type) bool {
	return types.Identical(t, types.Universe.Lookup("error").Type())
}

// callee returns the function that call names, or nil if it names none.
func (in *inspector) callee(call *ast.CallExpr) types.Object {
	fun := ast.Unparen(call.Fun)
	switch instance := fun.(type) {
	case *ast.IndexExpr:
		fun = ast.Unparen(instance.X)
	case *ast.IndexListExpr:
		fun = ast.Unparen(instance.X)
	}
	switch fun := fun.(type) {
	case *ast.Ident:
		return in.info.Uses[fun]
	case *ast.SelectorExpr:
		return in.info.Uses[fun.Sel]
	}
	return nil
}

// isFunc tells whether obj is one of the named package-level functions.
func isFunc(obj types.Object, path string, names ...string) bool {
	if obj == nil || !isPackageLevel(obj) || obj.Pkg().Path() != path {
		return false
	}
	for _, name := range names {
		if obj.Name() == name {
			return true
		}
	}
	return false
}

func isMapIterator(obj types.Object) bool { return isFunc(obj, "maps", "Keys", "Values", "All") }

// walk is one pass over the syntax of a core file. Nodes are visited parents
// first, which lets a parent excuse what is below it.
type walk struct {
	*inspector
	unordered unorderedComments
	imported  map[string]bool
	// labelLine is the line of the label of the range statement that follows.
	labelLine map[*ast.RangeStmt]int
	// excused holds the maps iterators whose order does not leak.
	excused map[*ast.CallExpr]bool
}

func (w *walk) visit(node ast.Node) bool {
	switch node := node.(type) {
	case *ast.GoStmt:
		w.report(node.Pos(), "go statement: one goroutine owns a core")
	case *ast.ChanType:
		w.report(node.Pos(), "channel type: a core takes events and returns effects")
	case *ast.SendStmt:
		w.report(node.Arrow, "channel send: a core returns effects")
	case *ast.SelectStmt:
		w.report(node.Pos(), "select statement: a core takes one event at a time")
	case *ast.UnaryExpr:
		w.unary(node)
	case *ast.LabeledStmt:
		if loop, ok := node.Stmt.(*ast.RangeStmt); ok {
			w.labelLine = map[*ast.RangeStmt]int{loop: w.line(node.Pos())}
		}
	case *ast.RangeStmt:
		w.rangeStmt(node)
	case *ast.CallExpr:
		w.call(node)
	case *ast.AssignStmt:
		for _, target := range node.Lhs {
			w.mutation(target, "assigns to")
		}
	case *ast.IncDecStmt:
		w.mutation(node.X, "assigns to")
	case *ast.Ident:
		w.use(node)
	}
	return true
}

func (w *walk) unary(node *ast.UnaryExpr) {
	switch node.Op {
	case token.ARROW:
		w.report(node.Pos(), "channel receive: a core takes events")
	case token.AND:
		w.mutation(node.X, "takes the address of")
	}
}

func (w *walk) rangeStmt(node *ast.RangeStmt) {
	if node.Tok == token.ASSIGN {
		w.mutation(node.Key, "assigns to")
		w.mutation(node.Value, "assigns to")
	}
	iterator, isCall := ast.Unparen(node.X).(*ast.CallExpr)
	isCall = isCall && isMapIterator(w.callee(iterator))
	ranged := w.info.TypeOf(node.X)
	switch {
	case ranged != nil && underlyingIs[*types.Chan](ranged):
		w.report(node.Pos(), "range over a channel: a core takes events")
	case !isCall && (ranged == nil || !underlyingIs[*types.Map](ranged)):
	case w.unordered.excuse(w.line(node.Pos())), w.unordered.excuse(w.labelLine[node]):
		if isCall {
			w.excuse(iterator)
		}
	case !isCall:
		w.report(node.Pos(), "range over a map in random order: sort the keys, or say why not with %s", unorderedDirective)
	}
}

// underlyingIs tells whether t, or a type that the type parameter t allows, is
// a T underneath.
func underlyingIs[T types.Type](t types.Type) bool {
	parameter, ok := types.Unalias(t).(*types.TypeParam)
	if !ok {
		_, is := t.Underlying().(T)
		return is
	}
	constraint, ok := parameter.Constraint().Underlying().(*types.Interface)
	if !ok {
		return false
	}
	for embedded := range constraint.EmbeddedTypes() {
		if anyTermIs[T](embedded) {
			return true
		}
	}
	return false
}

func anyTermIs[T types.Type](t types.Type) bool {
	union, ok := t.(*types.Union)
	if !ok {
		return underlyingIs[T](t)
	}
	for term := range union.Terms() {
		if underlyingIs[T](term.Type()) {
			return true
		}
	}
	return false
}

func (w *walk) excuse(iterator *ast.CallExpr) {
	if w.excused == nil {
		w.excused = make(map[*ast.CallExpr]bool)
	}
	w.excused[iterator] = true
}

func (w *walk) call(node *ast.CallExpr) {
	callee := w.callee(node)
	if builtin, ok := callee.(*types.Builtin); ok {
		w.builtin(node, builtin.Name())
		return
	}
	if isFunc(callee, "slices", "Sorted", "SortedFunc", "SortedStableFunc") && len(node.Args) > 0 {
		if iterator, ok := ast.Unparen(node.Args[0]).(*ast.CallExpr); ok {
			w.excuse(iterator)
		}
	}
	if isMapIterator(callee) && !w.excused[node] {
		w.report(node.Pos(), "maps.%s yields in random order: pass it straight to slices.Sorted", callee.Name())
	}
}

func (w *walk) builtin(node *ast.CallExpr, name string) {
	switch name {
	case "close":
		w.report(node.Pos(), "close: a core has no channels")
	case "recover":
		w.report(node.Pos(), "recover: a core that failed an assertion is not to be trusted any more")
	case "print", "println":
		w.report(node.Pos(), "%s: a core does no I/O", name)
	}
}

// mutation rejects changing, or making changeable, a package-level variable.
func (w *walk) mutation(target ast.Expr, verb string) {
	for target != nil {
		switch expr := target.(type) {
		case *ast.ParenExpr:
			target = expr.X
		case *ast.IndexExpr:
			target = expr.X
		case *ast.StarExpr:
			target = expr.X
		case *ast.SelectorExpr:
			if w.isPackageVar(expr.Sel) {
				target = expr.Sel
				continue
			}
			target = expr.X
		case *ast.Ident:
			if w.isPackageVar(expr) {
				w.report(expr.Pos(), "%s package-level variable %s", verb, expr.Name)
			}
			return
		default:
			return
		}
	}
}

func (w *walk) isPackageVar(name *ast.Ident) bool {
	variable, ok := w.info.Uses[name].(*types.Var)
	return ok && isPackageLevel(variable)
}

// use checks what an identifier refers to.
func (w *walk) use(name *ast.Ident) {
	obj := w.info.Uses[name]
	if obj == nil || obj.Pkg() == nil {
		return
	}
	if _, ok := obj.(*types.PkgName); ok {
		return
	}
	path := obj.Pkg().Path()
	if path == w.pkg.Path() {
		w.useOwn(name, obj)
		return
	}
	// Package io is exempt because the interfaces of pure packages, such as
	// hash.Hash, borrow its methods. A denied package that the file imports has
	// been reported there.
	if why := deniedImport(path); why != "" && path != "io" && !w.imported[path] {
		w.report(name.Pos(), "must not use %s of package %s: %s", obj.Name(), path, why)
	}
	if why := deniedName(obj); why != "" {
		w.report(name.Pos(), "must not use %s.%s: %s", obj.Pkg().Name(), obj.Name(), why)
	}
}

// useOwn rejects leaving the core files for another file of the package.
func (w *walk) useOwn(name *ast.Ident, obj types.Object) {
	kind := "function"
	switch obj := obj.(type) {
	case *types.Func:
		if obj.Signature().Recv() != nil {
			kind = "method"
		}
	case *types.Var:
		kind = "variable"
		if !isPackageLevel(obj) || isError(obj.Type()) {
			return
		}
	default:
		return
	}
	file := w.filename(declared(obj).Pos())
	if w.core[file] || strings.HasSuffix(file, "_test.go") {
		return
	}
	w.report(name.Pos(), "%s %s is declared in %s, which is not a core file: mark that one too if it is pure, or move what is", kind, obj.Name(), filepath.Base(file))
}

// declared returns the object as it stands in the source: for an instance of a
// generic function, the function.
func declared(obj types.Object) types.Object {
	if fn, ok := obj.(*types.Func); ok {
		return fn.Origin()
	}
	return obj
}

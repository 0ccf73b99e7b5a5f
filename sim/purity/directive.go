package purity

import (
	"go/ast"
	"go/token"
	"strings"
)

const (
	coreDirective      = "//writ:core"
	unorderedDirective = "//writ:unordered"
)

// IsCore tells whether the file, which must have been parsed with comments,
// carries a valid //writ:core directive.
func IsCore(fset *token.FileSet, file *ast.File) bool {
	for _, group := range file.Comments {
		for _, comment := range group.List {
			if isCoreDirective(fset, file, comment) {
				return true
			}
		}
	}
	return false
}

func isCoreDirective(fset *token.FileSet, file *ast.File, comment *ast.Comment) bool {
	return comment.Text == coreDirective &&
		fset.PositionFor(comment.Pos(), false).Column == 1 &&
		comment.Pos() < firstDeclaration(file)
}

// firstDeclaration returns where the first declaration that is not an import
// begins, or the end of the file.
func firstDeclaration(file *ast.File) token.Pos {
	for _, decl := range file.Decls {
		if gen, ok := decl.(*ast.GenDecl); !ok || gen.Tok != token.IMPORT {
			return decl.Pos()
		}
	}
	return file.FileEnd
}

// checkCoreDirective reports comments that look like the directive but are not.
func (in *inspector) checkCoreDirective(file *ast.File) {
	for _, group := range file.Comments {
		for _, comment := range group.List {
			text := strings.Fields(strings.TrimPrefix(comment.Text, "//"))
			if len(text) == 0 || text[0] != "writ:core" || isCoreDirective(in.fset, file, comment) {
				continue
			}
			in.report(comment.Pos(), "this comment does nothing: %s must stand alone on a line before the first declaration", coreDirective)
		}
	}
}

// unorderedComments holds the //writ:unordered comments of a file.
type unorderedComments struct {
	all []*unorderedComment
	// byLastLine finds a comment by the last line of the group it belongs to.
	byLastLine map[int]*unorderedComment
}

type unorderedComment struct {
	pos  token.Pos
	used bool
}

func (in *inspector) unorderedComments(file *ast.File) unorderedComments {
	found := unorderedComments{byLastLine: make(map[int]*unorderedComment)}
	for _, group := range file.Comments {
		for _, comment := range group.List {
			rest, ok := strings.CutPrefix(comment.Text, unorderedDirective)
			if !ok {
				continue
			}
			unordered := &unorderedComment{pos: comment.Pos()}
			found.all = append(found.all, unordered)
			found.byLastLine[in.line(group.End())] = unordered
			if reason, _, _ := strings.Cut(rest, " //"); strings.TrimSpace(reason) == "" {
				in.report(comment.Pos(), "%s needs a reason why the order cannot matter", unorderedDirective)
			}
		}
	}
	return found
}

// excuse tells whether a comment stands directly above line, and marks it used.
func (u unorderedComments) excuse(line int) bool {
	comment, ok := u.byLastLine[line-1]
	if ok {
		comment.used = true
	}
	return ok
}

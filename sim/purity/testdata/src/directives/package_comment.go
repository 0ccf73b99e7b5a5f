// Package directives shows where a directive counts.
//
//writ:core
package directives

func inPackageComment() {
	go step() // want `core: go statement` `core: function step is declared in late.go`
}

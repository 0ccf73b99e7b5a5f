package directives

import (
	_ "time"
)

//writ:core

// The first declaration comes after the directive.
func belowImports() {
	go belowImports() // want `core: go statement`
}

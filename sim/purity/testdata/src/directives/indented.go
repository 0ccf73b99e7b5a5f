package directives

import (
	//writ:core and more // want `core: this comment does nothing`
	_ "time"
)

func indented() { go step() }

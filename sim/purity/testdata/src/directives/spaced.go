package directives

// writ:core // want `core: this comment does nothing`

func spaced() { go step() }

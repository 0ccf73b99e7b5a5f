package directives

func step() {}

//writ:core // want `core: this comment does nothing: //writ:core must stand alone on a line before the first declaration`

func shell() { go step() }

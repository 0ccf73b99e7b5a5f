//writ:core

package broken

func step() { return undeclared }

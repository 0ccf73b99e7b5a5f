package gate

import "fmt"

// Resources counts the resources that the gate remembers anything of.
func (g *Gate) Resources() int {
	inOrder := 0
	g.resources.names.from("", func(*resource) bool {
		inOrder++
		return true
	})
	if n := len(g.resources.byName); inOrder != n {
		panic(fmt.Sprintf("%d resources are known by name, and %d in order", n, inOrder))
	}
	return inOrder
}

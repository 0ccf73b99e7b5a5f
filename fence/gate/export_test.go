package gate

// Resources counts the resources that the gate remembers anything of.
func (g *Gate) Resources() int { return len(g.resources) }

//writ:core

package neighbours

func sibling() {}

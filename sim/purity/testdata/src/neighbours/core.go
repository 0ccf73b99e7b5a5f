//writ:core

package neighbours

type core struct {
	locked
	limits limits
}

func (c *core) step() error {
	c.Lock()                 // want `core: must not use Lock of package sync: one goroutine owns a core`
	helper()                 // want `core: function helper is declared in shell.go, which is not a core file`
	_ = helper               // want `core: function helper is declared in shell.go`
	_ = generic(1)           // want `core: function generic is declared in shell.go`
	_ = c.limits.lookUp()    // want `core: method lookUp is declared in shell.go`
	_ = box[int]{}.get()     // want `core: method get is declared in shell.go`
	_ = registry             // want `core: variable registry is declared in shell.go`
	_ = c.limits.max + fixed // fields and constants are fine
	sibling()
	return errGone
}

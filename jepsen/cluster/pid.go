//go:build linux

package cluster

// Pid is the number of the process. It may have ended.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Pid is the number of the program's process. Errors: it is down.
func (p *Program) Pid() (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.check(); err != nil {
		return 0, err
	}
	return p.process.Pid(), nil
}

// Pid is the number of node i's process. Errors: it is down.
func (c *Cluster) Pid(i int) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.check(i); err != nil {
		return 0, err
	}
	return c.nodes[i].process.Pid(), nil
}

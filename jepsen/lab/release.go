//go:build linux

package lab

// Release is a pair of programs.
type Release struct {
	// Name is "this release" or "the previous one".
	Name        string
	Writ, Guard string
}

// first is what nodes and guards are started as.
func (c Config) first() Release {
	if c.Previous.Writ != "" {
		return c.Previous
	}
	return Release{"this release", c.Writ, c.Guard}
}

// OtherRelease is what nodes and guards are to be rolled to next: this release and the previous one by turns.
func (l *Lab) OtherRelease() Release {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rolls++
	if l.rolls%2 == 0 {
		return l.Config.Previous
	}
	return Release{"this release", l.Config.Writ, l.Config.Guard}
}

// UseGuard has a guard be started by a program from now on.
func (l *Lab) UseGuard(i int, path string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.guardPrograms[i] = path
}

func (l *Lab) guardProgram(i int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if path := l.guardPrograms[i]; path != "" {
		return path
	}
	return l.Config.first().Guard
}

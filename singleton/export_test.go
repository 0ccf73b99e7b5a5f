package singleton

// SetExit exchanges what ends the process.
func SetExit(s *Singleton, exit func(code int)) { s.exit = exit }

package route

import (
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxHostBytes is the longest name of the DNS.
const maxHostBytes = 253

// cleanHost returns the host of a Host header in the form in which it is compared: without port and final dot, in small
// letters. ok is false if it is not a host. No host at all is "".
func cleanHost(host string) (name string, ok bool) {
	if host == "" {
		return "", true
	}
	if host[0] == '[' {
		address, port, found := strings.Cut(host[1:], "]")
		ip, err := netip.ParseAddr(address)
		if !found || err != nil || !ip.Is6() || ip.Zone() != "" || !isPort(port) {
			return "", false
		}
		return ip.String(), true
	}
	name, port, found := strings.Cut(host, ":")
	if found && !isPort(":"+port) {
		return "", false
	}
	name = strings.TrimSuffix(name, ".")
	if name == "" || len(name) > maxHostBytes {
		return "", false
	}
	for i := range len(name) {
		if !isHostByte(name[i]) {
			return "", false
		}
	}
	return strings.ToLower(name), true
}

// isPort accepts nothing, and a colon followed by up to five digits.
func isPort(s string) bool {
	if s == "" {
		return true
	}
	if s[0] != ':' || len(s) > 6 {
		return false
	}
	for _, c := range s[1:] {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

func isHostByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_'
}

// hostProblem says what is wrong with the host of a route.
func hostProblem(host string) string {
	if host == "" {
		return ""
	}
	name := strings.TrimPrefix(host, "*.")
	if ip, err := netip.ParseAddr(name); err == nil && name == host && ip.Zone() == "" {
		return ""
	}
	cleaned, ok := cleanHost(name)
	switch {
	case !ok:
		return "is not a host"
	case len(cleaned) != len(name):
		return "has a port or a final dot"
	case strings.HasPrefix(name, ".") || strings.Contains(name, ".."):
		return "has an empty label"
	}
	return ""
}

// prefixProblem says what is wrong with the path of a route.
func prefixProblem(path string) string {
	if path == "/" {
		return ""
	}
	if strings.HasSuffix(path, "/") {
		return "ends in a slash"
	}
	if strings.Contains(path, "%") {
		return "is escaped"
	}
	for _, r := range path {
		if !unicode.IsPrint(r) {
			return "has a character that cannot be printed"
		}
	}
	// A semicolon is one that was escaped.
	if _, problem := cleanPath(strings.ReplaceAll(path, ";", "%3B")); problem != "" {
		return problem
	}
	return ""
}

// cleanPath decodes the path of a request. problem says in which way it could be read in two ways.
func cleanPath(escaped string) (path, problem string) {
	if escaped == "" || escaped[0] != '/' {
		return "", "does not begin with a slash"
	}
	decoded := make([]byte, 0, 64) // of the usual path no copy is made
	copied := false
	for i := 0; i < len(escaped); i++ {
		c := escaped[i]
		if c != '%' {
			switch {
			case c == '\\':
				return "", "has a backslash"
			case c == ';':
				return "", "has a path parameter (write %3B for a semicolon)"
			case c < ' ' || c == 0x7f:
				return "", "has a control character"
			}
			if copied {
				decoded = append(decoded, c)
			}
			continue
		}
		if !copied {
			decoded, copied = append(decoded, escaped[:i]...), true
		}
		c, ok := unhex(escaped[i+1:])
		if !ok {
			return "", "has a percent sign that escapes nothing"
		}
		if problem := escapeProblem(c, escaped[i+3:]); problem != "" {
			return "", problem
		}
		decoded = append(decoded, c)
		i += 2
	}
	path = escaped
	if copied {
		path = string(decoded)
	}
	return path, segmentProblem(path)
}

// escapeProblem judges an escaped byte, with what follows it.
func escapeProblem(c byte, rest string) string {
	switch {
	case c == '/' || c == '\\':
		return "has an escaped slash or backslash"
	case c < ' ' || c == 0x7f:
		return "has an escaped control character"
	case c == '%':
		if _, again := unhex(rest); again {
			return "is escaped twice"
		}
	}
	return ""
}

// segmentProblem judges a decoded path that begins with a slash. An empty last segment, a final slash, is fine.
func segmentProblem(path string) string {
	if !utf8.ValidString(path) {
		return "is not valid UTF-8"
	}
	for rest := path[1:]; rest != ""; {
		segment, after, more := strings.Cut(rest, "/")
		switch {
		case segment == "":
			return "has an empty segment"
		case segment == "." || segment == "..":
			return "has a dot segment"
		case !more:
			return ""
		}
		rest = after
	}
	return ""
}

// looseDecode decodes what it can, for routes where nothing is at stake.
func looseDecode(escaped string) string {
	if !strings.Contains(escaped, "%") {
		return escaped
	}
	var b strings.Builder
	for i := 0; i < len(escaped); i++ {
		if c, ok := unhex(escaped[i+1:]); escaped[i] == '%' && ok {
			b.WriteByte(c)
			i += 2
			continue
		}
		b.WriteByte(escaped[i])
	}
	return b.String()
}

// unhex reads the two hexadecimal digits that s begins with.
func unhex(s string) (c byte, ok bool) {
	if len(s) < 2 {
		return 0, false
	}
	high, ok1 := hexDigit(s[0])
	low, ok2 := hexDigit(s[1])
	return high<<4 | low, ok1 && ok2
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

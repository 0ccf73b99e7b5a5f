package config

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
)

// Quorum is the section "quorum" of programs that ask the nodes.
type Quorum struct {
	// Endpoints are the API addresses of nodes, host:port, those to be preferred first.
	Endpoints []string `koanf:"endpoints"`
	// CA, Cert and Key are PEM files: the authority to trust, and the program's own certificate and key, which say who it is.
	CA   string `koanf:"ca"`
	Cert string `koanf:"cert"`
	Key  string `koanf:"key"`
	// Insecure speaks plain text. For development on one machine.
	Insecure bool `koanf:"insecure"`
}

// Check answers everything that is wrong with the section. It looks at the files that are named.
func (q Quorum) Check() error {
	var all error
	if len(q.Endpoints) == 0 {
		all = Wrong("quorum.endpoints", "is missing", "list the API addresses of nodes, such as eu-1.example:7411")
	}
	for i, e := range q.Endpoints {
		field := fmt.Sprintf("quorum.endpoints[%d]", i)
		if !IsAddress(e) {
			all = errors.Join(all, Wrong(field, fmt.Sprintf("%q is not host:port", e), "write it like eu-1.example:7411"))
		} else if slices.Index(q.Endpoints, e) != i {
			all = errors.Join(all, Wrong(field, e+" is there twice", "remove it"))
		}
	}
	for _, f := range []struct {
		field, path string
		secret      bool
	}{{"quorum.ca", q.CA, false}, {"quorum.cert", q.Cert, false}, {"quorum.key", q.Key, true}} {
		switch {
		case q.Insecure && f.path != "":
			all = errors.Join(all, Wrong(f.field, "is set together with quorum.insecure", "remove one of them"))
		case q.Insecure:
		case f.path == "":
			all = errors.Join(all, Wrong(f.field, "is missing", "name a PEM file, or set quorum.insecure on a machine that nobody else reaches"))
		default:
			all = errors.Join(all, CheckFile(f.field, f.path, f.secret))
		}
	}
	return all
}

// IsAddress says whether text is host:port with a host, and a port that can be dialled.
func IsAddress(text string) bool {
	host, port, err := net.SplitHostPort(text)
	return err == nil && host != "" && IsPort(port, 1)
}

// IsPort says whether text is the number of a port, from least on.
func IsPort(text string, least int) bool {
	n, err := strconv.Atoi(text)
	return err == nil && n >= least && n <= 65535
}

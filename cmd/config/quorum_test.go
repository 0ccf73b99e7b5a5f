package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestQuorumIsChecked(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file.pem")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	good := Quorum{Endpoints: []string{"eu:7411", "[::1]:7411"}, CA: file, Cert: file, Key: file}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for want, q := range map[string]Quorum{
		"quorum.endpoints: is missing":             {CA: file, Cert: file, Key: file},
		"quorum.endpoints[0]: \"eu\" is not":       {Endpoints: []string{"eu"}, Insecure: true},
		"quorum.endpoints[0]: \"eu:http\" is not":  {Endpoints: []string{"eu:http"}, Insecure: true},
		"quorum.endpoints[0]: \"eu:0\" is not":     {Endpoints: []string{"eu:0"}, Insecure: true},
		"quorum.endpoints[0]: \"eu:65536\" is not": {Endpoints: []string{"eu:65536"}, Insecure: true},
		"quorum.endpoints[0]: \":7411\" is not":    {Endpoints: []string{":7411"}, Insecure: true},
		"quorum.endpoints[1]: eu:7411 is there":    {Endpoints: []string{"eu:7411", "eu:7411"}, Insecure: true},
		"quorum.key: is missing":                   {Endpoints: []string{"eu:7411"}, CA: file, Cert: file},
		"quorum.ca: is set together with":          {Endpoints: []string{"eu:7411"}, CA: file, Insecure: true},
		"quorum.cert: ":                            {Endpoints: []string{"eu:7411"}, CA: file, Cert: file + "x", Key: file},
	} {
		if err := q.Check(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", q, err, want)
		}
	}
}

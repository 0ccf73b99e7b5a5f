package pgprograms

import "testing"

func TestUsableVersions(t *testing.T) {
	for text, want := range map[string]string{
		"postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n": "15.18",
		"postgres (PostgreSQL) 17beta1":                          "17beta1",
		"postgres (PostgreSQL) 100.1":                            "100.1",
		"postgres (PostgreSQL) 14.9":                             "",
		"postgres (PostgreSQL) devel":                            "",
		"postgres":                                               "",
		"":                                                       "",
	} {
		version, ok := usable(text)
		if ok != (want != "") || ok && version != want {
			t.Errorf("%q: %q, %v, want %q", text, version, ok, want)
		}
	}
}

package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/writ-io/writ/lease"
)

// Flags win over the environment, and what belongs together comes from one place.
func TestConfig(t *testing.T) {
	type env map[string]string
	full := env{"WRIT_ENDPOINTS": "e:1, f:2", "WRIT_CA": "eca", "WRIT_CERT": "ecert", "WRIT_KEY": "ekey", "WRIT_REGION": "eu"}
	plain := env{"WRIT_ENDPOINTS": "e:1", "WRIT_INSECURE": "true"}
	cases := map[string]struct {
		env   env
		flags string
		want  string
	}{
		"environment alone":            {full, "", "e:1 f:2|eca ecert ekey|false|eu|"},
		"flags alone":                  {nil, "--endpoints=a:1,b:2 --ca=x --region=us --instance=i", "a:1 b:2|x  |false|us|i"},
		"flags over environment":       {full, "--endpoints=a:1 --ca=x --region=us", "a:1|x ecert ekey|false|us|"},
		"insecure over files":          {full, "--insecure", "e:1 f:2|  |true|eu|"},
		"insecure from environment":    {plain, "", "e:1|  |true||"},
		"files over insecure":          {plain, "--ca=x", "e:1|x  |false||"},
		"secure again":                 {plain, "--insecure=false", "e:1|  |false||"},
		"insecure and files by flags":  {full, "--insecure --ca=x", "INVALID: --insecure (or WRIT_INSECURE) excludes --ca, --cert and --key; choose one"},
		"insecure and files in env":    {env{"WRIT_ENDPOINTS": "e:1", "WRIT_INSECURE": "1", "WRIT_CA": "x"}, "", "INVALID: --insecure (or WRIT_INSECURE) excludes --ca, --cert and --key; choose one"},
		"what is no boolean":           {env{"WRIT_ENDPOINTS": "e:1", "WRIT_INSECURE": "perhaps"}, "", `INVALID: WRIT_INSECURE is "perhaps"; use true or false`},
		"a region that is too long":    {plain, "--region=" + strings.Repeat("x", 65), "INVALID: --region is 65 bytes long; use at most 64"},
		"an instance that is too long": {plain, "--instance=" + strings.Repeat("x", 129), "INVALID: --instance is 129 bytes long; use at most 128"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			for key, value := range c.env {
				t.Setenv(key, value)
			}
			var conn connection
			flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
			conn.flags(flags)
			if err := flags.Parse(strings.Fields(c.flags)); err != nil {
				t.Fatal(err)
			}
			cfg, err := conn.config()
			got := ""
			if err != nil {
				got = err.Error()
			} else {
				got = strings.Join([]string{
					strings.Join(cfg.Endpoints, " "), strings.Join([]string{cfg.CAFile, cfg.CertFile, cfg.KeyFile}, " "),
					map[bool]string{true: "true", false: "false"}[cfg.Insecure], cfg.Region, cfg.Instance,
				}, "|")
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestTimeoutBoundsEverything(t *testing.T) {
	conn := connection{endpoints: []string{"a:1"}, insecure: true, timeout: 700 * time.Millisecond}
	cfg, err := conn.config()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.CallTimeout != conn.timeout || cfg.DialTimeout != conn.timeout || cfg.AttemptTimeout >= cfg.CallTimeout {
		t.Errorf("dial %v, call %v, attempt %v", cfg.DialTimeout, cfg.CallTimeout, cfg.AttemptTimeout)
	}
}

func TestStableInstance(t *testing.T) {
	var conn connection
	first := conn.stableInstance()
	if !strings.HasPrefix(first, "cli-") || first != conn.stableInstance() || len(first) > lease.MaxInstanceBytes {
		t.Errorf("instance %q", first)
	}
	t.Setenv("WRIT_INSTANCE", "env")
	if got := conn.stableInstance(); got != "env" {
		t.Errorf("instance %q, want the environment's", got)
	}
	conn.instance = "flag"
	if got := conn.stableInstance(); got != "flag" {
		t.Errorf("instance %q, want the flag's", got)
	}
}

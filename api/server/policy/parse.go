package policy

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"

	"github.com/writ-io/writ/lease"
)

// document is the file as it is written. Durations are text there: a bare number would be nanoseconds.
type document struct {
	Grants []struct {
		Principals []string `koanf:"principals"`
		Prefix     *string  `koanf:"prefix"`
		Verbs      []string `koanf:"verbs"`
	} `koanf:"grants"`
	Resources []struct {
		Prefix    *string  `koanf:"prefix"`
		TTLMin    string   `koanf:"ttl_min"`
		TTLMax    string   `koanf:"ttl_max"`
		LockDelay string   `koanf:"lock_delay"`
		MaxLeases int      `koanf:"max_leases"`
		Regions   []string `koanf:"regions"`
	} `koanf:"resources"`
}

// Parse reads a policy. Errors: INVALID, with the place in the file and the remedy.
func Parse(data []byte) (*Policy, error) {
	doc, err := decode(data)
	if err != nil {
		return nil, err
	}
	p := &Policy{}
	for i, g := range doc.Grants {
		at := fmt.Sprintf("grants[%d]", i)
		verbs, err := parseVerbs(at+".verbs", g.Verbs)
		if err != nil {
			return nil, err
		}
		if g.Prefix == nil {
			return nil, lease.Invalid(at+".prefix", "is missing", `write one, such as "billing/"; "" is everything`)
		}
		if err := checkPrincipals(at+".principals", g.Principals); err != nil {
			return nil, err
		}
		if whole := verbs & (Admin | Audit); whole != 0 && *g.Prefix != "" {
			return nil, lease.Invalid(at+".verbs", fmt.Sprintf("gives %v under the prefix %q", whole, *g.Prefix),
				fmt.Sprintf(`%v is about the whole quorum: give it in a grant with the prefix ""`, whole))
		}
		p.Grants = append(p.Grants, Grant{Principals: g.Principals, Prefix: *g.Prefix, Verbs: verbs})
	}
	for i, r := range doc.Resources {
		at := fmt.Sprintf("resources[%d]", i)
		if r.Prefix == nil {
			return nil, lease.Invalid(at+".prefix", "is missing", `write one, such as "billing/"; "" is everything`)
		}
		rule := lease.PolicyRule{Prefix: *r.Prefix, MaxLeases: r.MaxLeases, Regions: r.Regions}
		for _, d := range []struct {
			field, text string
			into        *time.Duration
		}{{"ttl_min", r.TTLMin, &rule.MinTTL}, {"ttl_max", r.TTLMax, &rule.MaxTTL}, {"lock_delay", r.LockDelay, &rule.LockDelay}} {
			if *d.into, err = parseDuration(at+"."+d.field, d.text); err != nil {
				return nil, err
			}
		}
		p.Resources.Rules = append(p.Resources.Rules, rule)
	}
	if err := p.Resources.Validate(); err != nil {
		return nil, err
	}
	return p, nil
}

func decode(data []byte) (*document, error) {
	if err := checkOneDocument(data); err != nil {
		return nil, err
	}
	k := koanf.New("\x00") // no key is a path
	if err := k.Load(rawbytes.Provider(data), yaml.Parser()); err != nil {
		return nil, lease.Invalid("policy", "is not a YAML mapping: "+oneLine(err), "write grants: and resources: at the top")
	}
	if len(k.Raw()) == 0 {
		return nil, lease.Invalid("policy", "is empty", "write \"grants: []\" if nobody may do anything")
	}
	var doc document
	var seen mapstructure.Metadata
	err := k.UnmarshalWithConf("", &doc, koanf.UnmarshalConf{DecoderConfig: &mapstructure.DecoderConfig{
		TagName: "koanf", Result: &doc, Metadata: &seen, MatchName: func(key, field string) bool { return key == field },
	}})
	if err != nil {
		return nil, lease.Invalid("policy", "has a value of the wrong type: "+oneLine(err), "compare it with the documentation of the file")
	}
	if len(seen.Unused) > 0 {
		slices.Sort(seen.Unused)
		return nil, lease.Invalid(cmp.Or(seen.Unused[0], `""`), "is not a known key", "remove or correct it")
	}
	return &doc, nil
}

// checkOneDocument refuses further documents, which a YAML parser would pass over in silence.
func checkOneDocument(data []byte) error {
	content := false
	for line := range bytes.Lines(data) {
		line = bytes.TrimRight(line, " \t\r\n")
		switch {
		case len(line) == 0 || line[0] == '#' || line[0] == '%':
		case string(line) == "---" || bytes.HasPrefix(line, []byte("--- ")):
			if content {
				return lease.Invalid("policy", "holds more than one YAML document", "join them into one")
			}
		default:
			content = true
		}
	}
	return nil
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

func parseVerbs(at string, names []string) (Verb, error) {
	if len(names) == 0 {
		return 0, lease.Invalid(at, "is empty", "name some of "+allVerbs.String())
	}
	var verbs Verb
	for _, name := range names {
		verb := verbNamed(name)
		if verb == 0 {
			return 0, lease.Invalid(at, fmt.Sprintf("holds %q", name), "use some of "+allVerbs.String())
		}
		verbs |= verb
	}
	return verbs, nil
}

func checkPrincipals(at string, principals []string) error {
	if len(principals) == 0 {
		return lease.Invalid(at, "is empty", "name principals; \"*\" is everybody with a certificate")
	}
	for _, p := range principals {
		if p == "" {
			return lease.Invalid(at, "holds an empty name", "name a SPIFFE ID or DNS name; \"*\" is everybody with a certificate")
		}
		if strings.Contains(strings.TrimSuffix(p, "*"), "*") {
			return lease.Invalid(at, fmt.Sprintf("holds %q", p), "use \"*\" at the end only")
		}
	}
	return nil
}

func parseDuration(at, text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, lease.Invalid(at, fmt.Sprintf("is %q", text), "write a number with a unit, such as 1500ms, 10s or 5m")
	}
	if d < 0 {
		return 0, lease.Invalid(at, fmt.Sprintf("is %v", d), "use a positive duration")
	}
	return d, nil
}

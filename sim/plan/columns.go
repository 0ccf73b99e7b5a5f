package plan

import (
	"strconv"
	"strings"
	"time"
)

// column is a field of a section of a plan: how it is called, read and written. One table serves both [Parse] and
// [Plan.String].
type column struct {
	name  string
	plain string // what it is where it is left out; empty: it must be given
	// hide leaves the field out of the canonical form if it is plain.
	hide bool
	// flag is a field without a value.
	flag bool
	set  func(text string) (fix string)
	get  func() string
}

const (
	fixDuration = "use a duration, such as 10s, 1m30s or 250ms"
	fixNumber   = "use a whole number"
)

func duration(name string, p *time.Duration, plain string) column {
	return column{name: name, plain: plain, hide: plain == "0s",
		set: func(text string) string {
			d, err := time.ParseDuration(text)
			if err != nil {
				return fixDuration
			}
			*p = d
			return ""
		},
		get: func() string { return brief(*p) }}
}

// brief writes a duration without the zeros at its end.
func brief(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func number[T int | int32 | int64](name string, p *T, plain string) column {
	return column{name: name, plain: plain, hide: plain == "0",
		set: func(text string) string {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil || int64(T(n)) != n {
				return fixNumber
			}
			*p = T(n)
			return ""
		},
		get: func() string { return strconv.FormatInt(int64(*p), 10) }}
}

func word[T ~string](name string, p *T, plain string) column {
	return column{name: name, plain: plain,
		set: func(text string) string { *p = T(text); return "" },
		get: func() string { return string(*p) }}
}

// optional makes a word that may be left out.
func optional(c column) column {
	c.hide = true
	return c
}

func words(name string, p *[]string) column {
	return column{name: name,
		set: func(text string) string { *p = strings.Split(text, ","); return "" },
		get: func() string { return strings.Join(*p, ",") }}
}

func flag(name string, p *bool) column {
	return column{name: name, hide: true, flag: true,
		set: func(string) string { *p = true; return "" },
		get: func() string {
			if *p {
				return name
			}
			return ""
		}}
}

// settings are the directives of one value each.
func (p *Plan) settings() []column {
	return []column{
		optional(word("name", &p.Name, "")),
		{name: "seed", plain: "1",
			set: func(text string) string {
				n, err := strconv.ParseUint(text, 10, 64)
				if err != nil {
					return "use a whole number from 0 to 18446744073709551615"
				}
				p.Seed = n
				return ""
			},
			get: func() string { return strconv.FormatUint(p.Seed, 10) }},
		word("store", &p.Store, string(Raft)),
		duration("duration", &p.Duration, "2m"),
		duration("election", &p.Election, "1s"),
		duration("heartbeat", &p.Heartbeat, "100ms"),
		duration("max-ttl", &p.MaxTTL, "1m"),
		duration("lock-delay", &p.LockDelay, "0s"),
		duration("retention", &p.Retention, "5m"),
		duration("sync", &p.SyncDelay, "1ms"),
		number("sample", &p.Sample, "200"),
		duration("guard-lease", &p.GuardLease, "0s"),
		optional(word("storage", &p.Storage, "")),
	}
}

func (l *Link) columns() []column {
	return []column{
		duration("rtt", &l.RTT, ""),
		duration("jitter", &l.Jitter, "0s"),
		number("loss", &l.Loss, "0"),
		number("dup", &l.Dup, "0"),
	}
}

func (n *Node) columns() []column {
	return []column{word("region", &n.Region, ""), number("ppm", &n.PPM, "0")}
}

func (r *Rule) columns() []column {
	return []column{flag("open", &r.Open), flag("unproven", &r.Unproven), duration("drain", &r.Drain, "0s")}
}

func (g *Guard) columns() []column {
	return []column{
		word("region", &g.Region, ""), number("ppm", &g.PPM, "0"), words("covers", &g.Covers),
		duration("slack", &g.Slack, "2s"), duration("park", &g.Park, "10s"),
		optional(words("stamps", &g.Stamps)), optional(word("as", &g.As, "")), flag("close", &g.Close),
		flag("storage", &g.Storage),
	}
}

func (c *Client) columns() []column {
	return []column{
		word("region", &c.Region, ""),
		number("ppm", &c.PPM, "0"),
		words("resources", &c.Resources),
		flag("all", &c.All),
		duration("ttl", &c.TTL, "10s"),
		duration("hold", &c.Hold, "4s"),
		duration("think", &c.Think, "1s"),
		duration("write", &c.Write, "0s"),
		duration("checkpoint", &c.Checkpoint, "0s"),
		number("priority", &c.Priority, "0"),
		number("impatience", &c.Impatience, "0"),
		number("try", &c.Try, "0"),
		number("leave", &c.Leave, "0"),
		flag("stamped", &c.Stamped),
	}
}

func (w *Watcher) columns() []column {
	return []column{word("region", &w.Region, ""), optional(word("prefix", &w.Prefix, "")), duration("stay", &w.Stay, "20s")}
}

func (f *Fault) columns() []column {
	return []column{number("amount", &f.Amount, "0"), duration("by", &f.By, "0s")}
}

package shift

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/lease"
	"github.com/writ-io/writ/region/agent"
)

// DNS is a hook for shift: it updates record sets of a zone at its primary name server.
type DNS struct {
	// Server is the primary's host:port.
	Server string
	// Zone that is updated, such as example.com.
	Zone string
	// Key is the TSIG key's name, Secret its secret in base64, Algorithm one of hmac-sha256 (the default), hmac-sha384 and
	// hmac-sha512. Without a key the server has to trust the address.
	Key, Secret, Algorithm string
	// Records are what is updated.
	Records []Record
}

// Record is a record set, and what stands in it for each region.
type Record struct {
	// Name within the zone.
	Name string
	// Type is A, AAAA or CNAME.
	Type string
	// TTL of the records. Default 30s.
	TTL time.Duration
	// Values by region: addresses, or one name for a CNAME.
	Values map[string][]string
}

var _ agent.Hook = (*DNS)(nil)

const (
	defaultTTL = 30 * time.Second
	// tsigFudge is by how many seconds clocks may differ.
	tsigFudge = 300
	// dnsAttempt bounds one exchange.
	dnsAttempt = 5 * time.Second
	// dnsRounds is how often an update is tried against others.
	dnsRounds = 5
)

// algorithms are those that may sign updates.
var algorithms = map[string]string{"hmac-sha256": dns.HmacSHA256, "hmac-sha384": dns.HmacSHA384, "hmac-sha512": dns.HmacSHA512}

// Validate answers the first field that cannot be used as an INVALID [*lease.Error].
func (d *DNS) Validate() error {
	if _, _, err := net.SplitHostPort(d.Server); err != nil {
		return lease.Invalid("server", fmt.Sprintf("%.80q is not host:port", d.Server), "write it like ns1.example:53")
	}
	if _, ok := dns.IsDomainName(d.Zone); !ok || d.Zone == "" {
		return lease.Invalid("zone", fmt.Sprintf("%.80q is no name", d.Zone), "write it like example.com")
	}
	switch {
	case (d.Key == "") != (d.Secret == ""):
		return lease.Invalid("key", "and secret belong together", "set both or neither")
	case algorithms[cmp.Or(d.Algorithm, "hmac-sha256")] == "":
		return lease.Invalid("algorithm", fmt.Sprintf("is %.80q", d.Algorithm), "use hmac-sha256, hmac-sha384 or hmac-sha512")
	case len(d.Records) == 0:
		return lease.Invalid("records", "is empty", "name the record sets to update")
	}
	for i, r := range d.Records {
		if err := d.checkRecord(fmt.Sprintf("records[%d]", i), r); err != nil {
			return err
		}
	}
	return nil
}

func (d *DNS) checkRecord(field string, r Record) error {
	switch {
	case r.Type != "A" && r.Type != "AAAA" && r.Type != "CNAME":
		return lease.Invalid(field+".type", fmt.Sprintf("is %.80q", r.Type), "use A, AAAA or CNAME")
	case !dns.IsSubDomain(dns.Fqdn(d.Zone), dns.Fqdn(r.Name)):
		return lease.Invalid(field+".name", fmt.Sprintf("%.80q is not within %s", r.Name, d.Zone), "write the whole name")
	case r.TTL < 0 || r.TTL > 24*time.Hour || r.TTL%time.Second != 0:
		return lease.Invalid(field+".ttl", fmt.Sprintf("is %v", r.TTL), "use whole seconds up to 24h")
	case len(r.Values) == 0:
		return lease.Invalid(field+".values", "is empty", "say what stands in it for each region")
	}
	for region, values := range r.Values {
		if len(values) == 0 || r.Type == "CNAME" && len(values) != 1 {
			return lease.Invalid(field+".values."+region, fmt.Sprintf("has %d values", len(values)), "give at least one, and exactly one for a CNAME")
		}
		for _, v := range values {
			if _, err := r.record(v); err != nil {
				return lease.Invalid(field+".values."+region, fmt.Sprintf("holds %.80q", v), "give what a record of type "+r.Type+" holds")
			}
		}
	}
	return nil
}

// record makes one record of the set.
func (r Record) record(value string) (dns.RR, error) {
	if r.Type == "CNAME" {
		value = dns.Fqdn(value)
	}
	rr, err := dns.NewRR(fmt.Sprintf("%s %d IN %s %s", dns.Fqdn(r.Name), int(cmp.Or(r.TTL, defaultTTL).Seconds()), r.Type, value))
	if err == nil && rr == nil {
		err = errors.New("no record")
	}
	return rr, err
}

// at answers what stands in the set when so many percent go to a region; nil: it stays as it is. A recovery comes from no region,
// or from the very one that stays primary: everything goes to it at once.
func (r Record) at(from, to string, percent uint32) (set []dns.RR, err error) {
	var values []string
	switch {
	case percent >= 100, from == "", from == to:
		values = r.Values[to]
	case percent == 0:
		values = r.Values[from]
	case r.Type == "CNAME":
		return nil, nil
	default:
		values = append(slices.Clone(r.Values[from]), r.Values[to]...)
	}
	if len(values) == 0 {
		return nil, fmt.Errorf("%s %s has no values for %s: a record set is not left empty", r.Name, r.Type, to)
	}
	slices.Sort(values)
	for _, v := range slices.Compact(values) {
		rr, err := r.record(v)
		if err != nil {
			return nil, err
		}
		set = append(set, rr)
	}
	return set, nil
}

// Idempotent implements [agent.Hook].
func (d *DNS) Idempotent() bool { return true }

// Run implements [agent.Hook].
func (d *DNS) Run(ctx context.Context, task *writv1.Task) (agent.Outcome, error) {
	var say strings.Builder
	for range dnsRounds {
		done, err := d.update(ctx, task, &say)
		if done || err != nil {
			return agent.Outcome{Output: say.String()}, err
		}
	}
	return agent.Outcome{Output: say.String()}, fmt.Errorf("others go on updating %s: find out who does", d.Zone)
}

// update tries once; false without an error means that another one came in between.
func (d *DNS) update(ctx context.Context, task *writv1.Task, say *strings.Builder) (done bool, err error) {
	mark := dns.Fqdn("_writ-" + task.GetGroup() + "." + d.Zone)
	before, err := d.marks(ctx, mark)
	if err != nil {
		return false, err
	}
	if len(before) > 0 {
		if token := tokenIn(before); token > task.GetToken() {
			return false, fmt.Errorf("%s says that token %v has shifted the traffic: this one, %v, came late and changes nothing", mark, fence.Token(token), fence.Token(task.GetToken()))
		}
	}
	m := new(dns.Msg)
	m.SetUpdate(dns.Fqdn(d.Zone))
	if len(before) == 0 {
		m.RRsetNotUsed([]dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: mark, Rrtype: dns.TypeTXT}}})
	} else {
		m.Used(before)
	}
	for _, r := range d.Records {
		set, err := r.at(task.GetFrom(), task.GetTo(), task.GetPercent())
		if err != nil {
			return false, err
		}
		if set != nil {
			m.RemoveRRset(set[:1])
			m.Insert(set)
		}
	}
	text := fmt.Sprintf("token=%d promotion=%s percent=%d", task.GetToken(), task.GetPromotion(), task.GetPercent())
	note := &dns.TXT{Hdr: dns.RR_Header{Name: mark, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{text}}
	m.RemoveRRset([]dns.RR{note})
	m.Insert([]dns.RR{note})
	answer, err := d.exchange(ctx, m)
	switch {
	case err != nil:
		return false, err
	case answer.Rcode == dns.RcodeYXRrset || answer.Rcode == dns.RcodeNXRrset:
		return false, nil
	case answer.Rcode != dns.RcodeSuccess:
		return false, fmt.Errorf("%s refused the update of %s: %s", d.Server, d.Zone, dns.RcodeToString[answer.Rcode])
	}
	fmt.Fprintf(say, "%s: %s\n", d.Zone, text)
	if p := task.GetPercent(); p > 0 && p < 100 {
		say.WriteString("DNS knows no percent: both regions are answered until 100\n")
	}
	return true, nil
}

// marks are the records that tell of the last shift.
func (d *DNS) marks(ctx context.Context, name string) ([]dns.RR, error) {
	m := new(dns.Msg)
	m.SetQuestion(name, dns.TypeTXT)
	m.RecursionDesired = false
	answer, err := d.exchange(ctx, m)
	if err != nil {
		return nil, err
	}
	if answer.Rcode != dns.RcodeSuccess && answer.Rcode != dns.RcodeNameError || !answer.Authoritative {
		return nil, fmt.Errorf("%s does not answer for %s (%s): name its primary server", d.Server, d.Zone, dns.RcodeToString[answer.Rcode])
	}
	var found []dns.RR
	for _, rr := range answer.Answer {
		if rr.Header().Rrtype == dns.TypeTXT {
			rr.Header().Ttl = 0 // as a condition has it
			found = append(found, rr)
		}
	}
	return found, nil
}

// tokenIn is the newest token that records tell of.
func tokenIn(records []dns.RR) (newest uint64) {
	for _, rr := range records {
		txt, ok := rr.(*dns.TXT)
		if !ok {
			continue
		}
		for field := range strings.FieldsSeq(strings.Join(txt.Txt, "")) {
			if value, ok := strings.CutPrefix(field, "token="); ok {
				if token, err := strconv.ParseUint(value, 10, 64); err == nil {
					newest = max(newest, token)
				}
			}
		}
	}
	return newest
}

// exchange asks the server over TCP, signed where there is a key.
func (d *DNS) exchange(ctx context.Context, m *dns.Msg) (*dns.Msg, error) {
	client := &dns.Client{Net: "tcp", Timeout: dnsAttempt}
	if d.Key != "" {
		key := dns.CanonicalName(d.Key)
		client.TsigSecret = map[string]string{key: d.Secret}
		m.SetTsig(key, algorithms[cmp.Or(d.Algorithm, "hmac-sha256")], tsigFudge, time.Now().Unix())
	}
	answer, _, err := client.ExchangeContext(ctx, m, d.Server)
	if err != nil {
		return nil, fmt.Errorf("name server %s: %w", d.Server, err)
	}
	return answer, nil
}

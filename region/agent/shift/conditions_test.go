package shift

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// A server that is not the zone's own could tell what was; and who is the first to shift has to be the first.
func TestDNSConditions(t *testing.T) {
	authoritative := false
	var conditions []string
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{Listener: l, MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept },
		Handler: dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) {
			if m.Opcode == dns.OpcodeUpdate {
				for _, rr := range m.Answer {
					conditions = append(conditions, rr.Header().Name+" "+dns.ClassToString[rr.Header().Class]+" "+dns.TypeToString[rr.Header().Rrtype])
				}
			}
			answer := new(dns.Msg).SetReply(m)
			answer.Authoritative = authoritative
			_ = w.WriteMsg(answer) // who asks sees it
		})}
	ended := make(chan error, 1)
	go func() { ended <- server.ActivateAndServe() }()
	defer func() {
		if err := errors.Join(server.Shutdown(), <-ended); err != nil {
			t.Error(err)
		}
	}()
	hook := hookFor(l.Addr().String())
	hook.Key, hook.Secret = "", ""
	if _, err := hook.Run(t.Context(), shiftTask(100, 7)); err == nil || !strings.Contains(err.Error(), "primary server") || len(conditions) != 0 {
		t.Errorf("a server that does not answer for the zone: %v", err)
	}
	authoritative = true
	if _, err := hook.Run(t.Context(), shiftTask(100, 7)); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(conditions, ", "); got != "_writ-orders.example.test. NONE TXT" {
		t.Errorf("conditions: %s", got)
	}
}

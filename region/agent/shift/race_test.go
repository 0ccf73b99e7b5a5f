//go:build unix

package shift

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// before stands before a name server, and calls meanwhile when the first update has been sent and has not arrived.
func before(t *testing.T, server string, meanwhile func()) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	var once sync.Once
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return // it is closed
			}
			running.Go(func() {
				err := forward(conn, server, func(m []byte) {
					if len(m) > 2 && int(m[2]>>3&0xf) == dns.OpcodeUpdate {
						once.Do(meanwhile)
					}
				})
				if err := errors.Join(err, conn.Close()); err != nil {
					t.Error(err)
				}
			})
		}
	})
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		running.Wait()
	})
	return l.Addr().String()
}

// forward passes one exchange on.
func forward(conn net.Conn, server string, look func([]byte)) (err error) {
	backend, err := net.Dial("tcp", server)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, backend.Close()) }()
	m, err := message(conn)
	if err != nil {
		return err
	}
	look(m[2:])
	if _, err := backend.Write(m); err != nil {
		return err
	}
	if m, err = message(backend); err != nil {
		return err
	}
	_, err = conn.Write(m)
	return err
}

// message reads one, with its length before it.
func message(r io.Reader) ([]byte, error) {
	m := make([]byte, 2)
	if _, err := io.ReadFull(r, m); err != nil {
		return nil, err
	}
	m = append(m, make([]byte, binary.BigEndian.Uint16(m))...)
	_, err := io.ReadFull(r, m[2:])
	return m, err
}

// Another shift comes between this one's look and its update: the server refuses it, and it looks again.
func TestShiftsThatMeet(t *testing.T) {
	eu, us := []string{"192.0.2.1"}, []string{"198.51.100.1", "198.51.100.2"}
	for name, c := range map[string]struct {
		token uint64 // of this shift, to us; the other one has 10, and goes to eu
		first bool   // nobody has shifted before
		want  []string
	}{
		"OlderOne":      {9, false, eu},
		"NewerOne":      {11, false, us},
		"OlderAndFirst": {9, true, eu},
		"NewerAndFirst": {11, true, us},
	} {
		t.Run(name, func(t *testing.T) {
			server := nameServer(t)
			if !c.first {
				if _, err := hookFor(server).Run(t.Context(), shiftTask(100, 8)); err != nil {
					t.Fatal(err)
				}
			}
			met := false
			address := before(t, server, func() {
				met = true
				other := shiftTask(100, 10)
				other.From, other.To = "us", "eu"
				if _, err := hookFor(server).Run(t.Context(), other); err != nil {
					t.Error(err)
				}
			})
			_, err := hookFor(address).Run(t.Context(), shiftTask(100, c.token))
			if late := err != nil && strings.Contains(err.Error(), "came late"); late != (c.token < 10) || !late && err != nil {
				t.Errorf("token %d: %v", c.token, err)
			}
			if !met {
				t.Error("they have not met")
			}
			if got := values(t, server, "db.example.test", dns.TypeA); !slices.Equal(got, c.want) {
				t.Errorf("db is %v, want %v", got, c.want)
			}
		})
	}
}

// What a shift tells of itself, and how long its answers are kept.
func TestWhatAShiftLeaves(t *testing.T) {
	server := nameServer(t)
	hook := hookFor(server)
	hook.Records = append(hook.Records, Record{Name: "v6.example.test", Type: "AAAA", TTL: hook.Records[0].TTL + 90e9, Values: map[string][]string{"us": {"2001:db8::1"}}})
	if err := hook.Validate(); err != nil {
		t.Fatal(err)
	}
	if _, err := hook.Run(t.Context(), shiftTask(100, 7)); err != nil {
		t.Fatal(err)
	}
	if got := values(t, server, "_writ-orders.example.test", dns.TypeTXT); !slices.Equal(got, []string{`"token=7 promotion=orders-1.4 percent=100"`}) {
		t.Errorf("it tells of itself %v", got)
	}
	if got := values(t, server, "v6.example.test", dns.TypeAAAA); !slices.Equal(got, []string{"2001:db8::1"}) {
		t.Errorf("v6 is %v", got)
	}
	for name, want := range map[string]uint32{"db.example.test.": 30, "v6.example.test.": 90} {
		m := new(dns.Msg)
		m.SetQuestion(name, map[bool]uint16{true: dns.TypeAAAA, false: dns.TypeA}[strings.HasPrefix(name, "v6")])
		answer, err := dns.Exchange(m, server)
		if err != nil || len(answer.Answer) == 0 || answer.Answer[0].Header().Ttl != want {
			t.Errorf("%s is kept: %v, %v, want %d seconds", name, answer, err, want)
		}
	}
	// Another group's shifts are none of this one's business.
	other := shiftTask(0, 3)
	other.Group = "billing"
	if _, err := hookFor(server).Run(t.Context(), other); err != nil {
		t.Errorf("an older token of another group: %v", err)
	}
}

package tracing

import (
	"context"
	"crypto/ed25519"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/timestamppb"

	writv1 "github.com/writ-io/writ/api/writ/v1"
	"github.com/writ-io/writ/cmd/config"
	"github.com/writ-io/writ/cmd/tracing/tracingtest"
	"github.com/writ-io/writ/region"
)

func open(t *testing.T, c Config) *Tracer {
	t.Helper()
	tracer, err := Open(c, Service{Name: "writ-node", Instance: "n1", Region: "eu", Version: "test"}, nil)
	if err != nil || tracer == nil {
		t.Fatal(tracer, err)
	}
	return tracer
}

func spanOf(i int) Span {
	now := time.Now()
	return Span{Traceparent: fmt.Sprintf("00-%032x-%016x-01", i+1, i+1), Name: fmt.Sprint("span ", i), Start: now.Add(-time.Second), End: now}
}

func TestNothingIsTracedWithoutAnEndpoint(t *testing.T) {
	for _, name := range endpointVariables {
		t.Setenv(name, "")
	}
	tracer, err := Open(Config{}, Service{}, nil)
	if tracer != nil || err != nil {
		t.Fatal(tracer, err)
	}
	tracer.Send(spanOf(1))
	if tracer.Raises("g", "eu") != nil || tracer.Hooks("a", "eu") != nil || tracer.Close(t.Context()) != nil {
		t.Error("something is installed")
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	if tracer, err = Open(Config{}, Service{}, nil); tracer == nil || err != nil {
		t.Fatal(tracer, err)
	}
	if err := tracer.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestConfigIsRefused(t *testing.T) {
	for field, c := range map[string]Config{
		"endpoint": {Endpoint: "collector"},
		"insecure": {Insecure: true},
		"ca":       {CA: "x"},
		"cert":     {Endpoint: "c:1", Cert: "x"},
		"sample":   {Endpoint: "c:1", Sample: 1.5},
	} {
		if p := (*config.Error)(nil); !errors.As(c.Check(), &p) || p.Field != "tracing."+field || p.Fix == "" {
			t.Errorf("%s: %v", field, p)
		}
	}
	if err := (Config{Endpoint: "c:1", Insecure: true, CA: "x"}).Check(); err == nil || !strings.HasPrefix(err.Error(), "tracing.insecure: ") {
		t.Error(err)
	}
	if _, err := Open(Config{Endpoint: "c:1", CA: "/nowhere"}, Service{}, nil); err == nil || !strings.HasPrefix(err.Error(), "tracing.ca: ") {
		t.Error(err)
	}
	if err := (Config{Endpoint: "c:1", Sample: 0.5}).Check(); err != nil {
		t.Error(err)
	}
}

// A collector that takes connections and never answers, and one that is not there.
func TestACollectorHoldsNobodyUp(t *testing.T) {
	stalled := tracingtest.New(t)
	stalled.Stall = make(chan struct{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := l.Addr().String()
	_ = l.Close()
	for name, address := range map[string]string{"stalled": stalled.Address, "gone": gone} {
		t.Run(name, func(t *testing.T) {
			tracer := open(t, Config{Endpoint: address, Insecure: true})
			sent := make(chan struct{})
			go func() {
				for i := range 20 * queueSize {
					tracer.Send(spanOf(i))
				}
				close(sent)
			}()
			select {
			case <-sent:
			case <-time.After(exportTimeout): // nothing was waited for if it did not take as long as one attempt
				t.Fatal("it waits for the collector")
			}
			began := time.Now()
			if err := tracer.Close(context.Background()); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > exportTimeout {
				t.Errorf("the end took %v", took)
			}
		})
	}
	if got := len(stalled.Spans()); got > 4*queueSize {
		t.Errorf("%d spans were kept for a collector that does not answer", got)
	}
	close(stalled.Stall)
}

func TestShareOfTraces(t *testing.T) {
	a, b := tracingtest.New(t), tracingtest.New(t)
	one, other := open(t, Config{Endpoint: a.Address, Insecure: true, Sample: 0.25}), open(t, Config{Endpoint: b.Address, Insecure: true, Sample: 0.25})
	dice := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		s := spanOf(1)
		s.Traceparent = fmt.Sprintf("00-%016x%016x-%016x-01", dice.Uint64(), dice.Uint64(), dice.Uint64())
		one.Send(s)
		other.Send(s)
		left := s
		left.Traceparent = strings.TrimSuffix(s.Traceparent, "01") + "00"
		one.Send(left) // the caller does not want it traced
		left.Traceparent = "nonsense"
		one.Send(left)
	}
	if one.Close(t.Context()) != nil || other.Close(t.Context()) != nil {
		t.Fatal("not closed")
	}
	traces := func(c *tracingtest.Collector) (all []string) {
		for _, s := range c.Spans() {
			all = append(all, s.Trace)
		}
		slices.Sort(all)
		return all
	}
	if got := traces(a); len(got) < 150 || len(got) > 350 || !slices.Equal(got, traces(b)) {
		t.Errorf("%d and %d of 1000 traces", len(got), len(traces(b)))
	}
}

// told is a promotion as it goes, a record for each state.
func told(id string) (all []*writv1.Promotion) {
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for i, state := range []writv1.PromotionState{
		writv1.PromotionState_PROMOTION_STATE_PROPOSED, writv1.PromotionState_PROMOTION_STATE_APPROVING, writv1.PromotionState_PROMOTION_STATE_PREFLIGHT,
		writv1.PromotionState_PROMOTION_STATE_FENCING, writv1.PromotionState_PROMOTION_STATE_GRANTED, writv1.PromotionState_PROMOTION_STATE_VERIFYING,
		writv1.PromotionState_PROMOTION_STATE_DONE,
	} {
		all = append(all, &writv1.Promotion{
			Id: id, Group: "orders", State: state, Revision: int64(2*i + 1), StateSince: timestamppb.New(began.Add(time.Duration(i) * time.Second)),
			PlannedAt: timestamppb.New(began), Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		})
	}
	return all
}

// Whenever another node takes over, every state is told, and what is told twice is the same.
func TestEveryStateIsTold(t *testing.T) {
	records := told("orders-1.1")
	for moved := range len(records) + 1 {
		leader := 0
		sent := make(map[string]Span)
		var nodes []*Promotions
		for n := range 2 {
			nodes = append(nodes, &Promotions{
				leads: func() bool { return n == leader }, now: time.Now, wake: make(chan struct{}, 1), known: make(map[string]*course),
				send: func(s Span) {
					if n != leader {
						t.Error("somebody who does not decide has sent")
					}
					if before, ok := sent[s.ID]; ok && (before.Name != s.Name || before.Start != s.Start || before.End != s.End) {
						t.Errorf("%v was told as %v", before, s)
					}
					sent[s.ID] = s
				},
			})
		}
		for i, rec := range records {
			for n, node := range nodes {
				node.Tell(rec)
				if i == moved && n == leader {
					continue // it ends before it looks
				}
				node.turn()
			}
			if i == moved {
				leader = 1
				nodes[1].turn()
			}
		}
		if len(sent) != len(records) { // each state that was left, and the whole
			t.Errorf("moved at %d: %d spans", moved, len(sent))
		}
		whole := sent[region.PromotionSpan("orders-1.1")]
		if whole.End.Sub(whole.Start) != 6*time.Second || !strings.Contains(whole.Traceparent, "b7ad6b7169203331") || whole.Failure != "" {
			t.Errorf("the whole: %+v", whole)
		}
	}
}

func TestAPromotionThatFailedIsOne(t *testing.T) {
	records := told("orders-1.2")
	last := records[len(records)-1]
	last.State, last.Reason = writv1.PromotionState_PROMOTION_STATE_CANCELLED, "the drain missed its deadline"
	var all []Span
	p := &Promotions{leads: func() bool { return true }, now: time.Now, wake: make(chan struct{}, 1), known: make(map[string]*course), send: func(s Span) { all = append(all, s) }}
	for _, rec := range records {
		p.Tell(rec)
	}
	p.turn()
	if whole := all[len(all)-1]; whole.Failure != last.Reason || len(p.known) != 0 {
		t.Errorf("%+v, %d known", whole, len(p.known))
	}
	p.Tell(last) // what changes later is not another promotion
	p.turn()
	if len(all) != len(records) {
		t.Errorf("%d spans", len(all))
	}
}

// pems writes a certificate for 127.0.0.1 that vouches for itself, and its key.
func pems(t *testing.T, name string) (cert, key string, pair tls.Certificate) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(crand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(t.TempDir(), name+".pem"), filepath.Join(t.TempDir(), name+"-key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
}

// Spans go to the collector that is meant, and to one that asks who sends them.
func TestTLS(t *testing.T) {
	serverCert, _, serverPair := pems(t, "collector")
	clientCert, clientKey, clientPair := pems(t, "node")
	leaf, err := x509.ParseCertificate(clientPair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AddCert(leaf)
	collector := tracingtest.New(t, grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{serverPair}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
	})))
	for _, c := range []struct {
		name  string
		cfg   Config
		count int
	}{
		{"another authority", Config{CA: clientCert, Cert: clientCert, Key: clientKey}, 0},
		{"no certificate", Config{CA: serverCert}, 0},
		{"plain", Config{Insecure: true}, 0},
		{"right", Config{CA: serverCert, Cert: clientCert, Key: clientKey}, 1},
	} {
		c.cfg.Endpoint = collector.Address
		tracer := open(t, c.cfg)
		tracer.Send(spanOf(1))
		if err := tracer.Close(context.Background()); err != nil {
			t.Log(err) // it was not sent
		}
		if got := len(collector.Spans()); got != c.count {
			t.Errorf("%s: %d spans, want %d", c.name, got, c.count)
		}
	}
}

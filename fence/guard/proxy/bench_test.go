package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/fence/guard/proxy"
	"github.com/writ-io/writ/fence/guard/route"
)

// lightKeeper does what a gate does for an unchanged token, and no more.
type lightKeeper struct {
	mu       sync.Mutex
	floors   map[string]fence.Token
	inFlight map[string]int
}

func newLightKeeper() *lightKeeper {
	return &lightKeeper{floors: map[string]fence.Token{}, inFlight: map[string]int{}}
}

func (k *lightKeeper) Admit(_ context.Context, w fence.Write) (fence.Admission, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if floor := k.floors[w.Resource]; w.Token < floor {
		return nil, &fence.StaleError{Resource: w.Resource, Have: w.Token, Floor: floor}
	}
	k.floors[w.Resource] = w.Token
	k.inFlight[w.Resource]++
	return &lightAdmission{keeper: k, resource: w.Resource, token: w.Token}, nil
}

type lightAdmission struct {
	keeper   *lightKeeper
	resource string
	token    fence.Token
}

func (a *lightAdmission) Token() fence.Token   { return a.token }
func (a *lightAdmission) Cut() <-chan struct{} { return nil }
func (a *lightAdmission) Done(fence.Outcome) {
	a.keeper.mu.Lock()
	defer a.keeper.mu.Unlock()
	a.keeper.inFlight[a.resource]--
}

func mustProxy(tb testing.TB, upstream string) *proxy.Proxy {
	tb.Helper()
	p, err := proxy.New(proxy.Config{
		Routes:    []route.Route{{Path: "/tenants", Resource: "tenants/{1}", Trusted: true, Upstream: "up"}},
		Upstreams: []proxy.Upstream{{Name: "up", URL: upstream}},
	}, newLightKeeper(), nil)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// barePool is what the proxy does for its buffers.
type barePool struct{ pool sync.Pool }

func (p *barePool) Get() []byte  { return p.pool.Get().(*[32 << 10]byte)[:] }
func (p *barePool) Put(b []byte) { p.pool.Put((*[32 << 10]byte)(b)) }

// bare is a reverse proxy that guards nothing, with the same settings of the transport.
func bare(upstream *url.URL) http.Handler {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &httputil.ReverseProxy{
		Rewrite: func(pr *httputil.ProxyRequest) { pr.SetURL(upstream); pr.SetXForwarded() },
		Transport: &http.Transport{
			DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext, Protocols: &protocols, DisableCompression: true,
			MaxIdleConns: 256, MaxIdleConnsPerHost: 256, IdleConnTimeout: time.Minute, ExpectContinueTimeout: time.Second,
		},
		BufferPool: &barePool{sync.Pool{New: func() any { return new([32 << 10]byte) }}},
	}
}

// bareServer has the timeouts that any server should have.
func bareServer(upstream *url.URL) *http.Server {
	return &http.Server{Handler: bare(upstream), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute}
}

// serve runs a handler until the benchmark ends.
func serve(tb testing.TB, server *http.Server) string {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	tb.Cleanup(func() { server.Close(); <-done })
	return listener.Addr().String()
}

// lightUpstream answers as cheaply as it can, so that what is measured is the proxies.
func lightUpstream(tb testing.TB) string {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { listener.Close() })
	go func() {
		for {
			nc, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				r := bufio.NewReader(nc)
				answer := []byte("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstored")
				for skipMessage(r) == nil {
					if _, err := nc.Write(answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	return listener.Addr().String()
}

// skipMessage reads a header with a Content-Length, and the body.
func skipMessage(r *bufio.Reader) error {
	length := 0
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) <= 2 {
			_, err = r.Discard(length)
			return err
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
}

// load sends writes of 1 KiB over 64 connections for that long, and returns how many a second were answered and how long
// the slowest hundredth took at least.
func load(tb testing.TB, conns []net.Conn, d time.Duration) (rate float64, p99 time.Duration) {
	tb.Helper()
	request := []byte("PUT /tenants/acme/orders HTTP/1.1\r\nHost: store\r\nUser-Agent: bench\r\nContent-Type: application/json\r\nWrit-Token: 1.5\r\nContent-Length: 1024\r\n\r\n" +
		strings.Repeat("x", 1024))
	var stop atomic.Bool
	var wg sync.WaitGroup
	times := make([][]time.Duration, len(conns))
	begin := time.Now()
	for i, nc := range conns {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := bufio.NewReader(nc)
			for !stop.Load() {
				sent := time.Now()
				_, err := nc.Write(request)
				if err == nil {
					err = skipMessage(r)
				}
				if err != nil {
					tb.Error(err)
					return
				}
				times[i] = append(times[i], time.Since(sent))
			}
		}()
	}
	timer := time.AfterFunc(d, func() { stop.Store(true) })
	defer timer.Stop()
	wg.Wait()
	took := time.Since(begin)
	all := slices.Concat(times...)
	slices.Sort(all)
	return float64(len(all)) / took.Seconds(), all[len(all)*99/100]
}

func connect(tb testing.TB, address string) []net.Conn {
	tb.Helper()
	conns := make([]net.Conn, 64)
	for i := range conns {
		nc, err := net.Dial("tcp", address)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { nc.Close() })
		conns[i] = nc
	}
	return conns
}

// BenchmarkAgainstBare compares the proxy with a bare httputil.ReverseProxy, in turns of half a second. The ratios are the
// medians of pairs of turns: run it with -benchtime=20x.
func BenchmarkAgainstBare(b *testing.B) {
	upstream := &url.URL{Scheme: "http", Host: lightUpstream(b)}
	p := mustProxy(b, upstream.String())
	guarded := connect(b, serve(b, p.Server("")))
	plain := connect(b, serve(b, bareServer(upstream)))
	const turn = 500 * time.Millisecond
	load(b, guarded, turn)
	load(b, plain, turn)
	var rates, tails, guardedRates, plainRates []float64
	var cost, plainCost [2]float64 // processor time, and writes
	measure := func(conns []net.Conn, cost *[2]float64) (float64, time.Duration) {
		before := processorTicks()
		rate, tail := load(b, conns, turn)
		cost[0] += processorTicks() - before
		cost[1] += rate
		return rate, tail
	}
	for i := 0; b.Loop(); i++ {
		var rate, bareRate float64
		var tail, bareTail time.Duration
		if i%2 == 0 {
			rate, tail = measure(guarded, &cost)
			bareRate, bareTail = measure(plain, &plainCost)
		} else {
			bareRate, bareTail = measure(plain, &plainCost)
			rate, tail = measure(guarded, &cost)
		}
		rates, tails = append(rates, rate/bareRate), append(tails, float64(tail)/float64(bareTail))
		guardedRates, plainRates = append(guardedRates, rate), append(plainRates, bareRate)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(rates), "throughput-ratio")
	b.ReportMetric(median(tails), "p99-ratio")
	if plainCost[0] > 0 {
		// Of the whole process, with callers and storage. Unlike the others it does not depend on what else runs here.
		b.ReportMetric(cost[0]/cost[1]/(plainCost[0]/plainCost[1]), "cpu-ratio")
	}
	b.ReportMetric(median(guardedRates), "guarded/s")
	b.ReportMetric(median(plainRates), "bare/s")
}

// processorTicks is the processor time of this process, where it can be known.
func processorTicks() float64 {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return user + system
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// BenchmarkWrite is one connection, for profiles.
func BenchmarkWrite(b *testing.B) {
	upstream := &url.URL{Scheme: "http", Host: lightUpstream(b)}
	for name, server := range map[string]*http.Server{"guarded": mustProxy(b, upstream.String()).Server(""), "bare": bareServer(upstream)} {
		b.Run(name, func(b *testing.B) {
			nc, err := net.Dial("tcp", serve(b, server))
			if err != nil {
				b.Fatal(err)
			}
			defer nc.Close()
			r := bufio.NewReader(nc)
			request := []byte("PUT /tenants/acme/orders HTTP/1.1\r\nHost: store\r\nWrit-Token: 1.5\r\nContent-Length: 1024\r\n\r\n" + strings.Repeat("x", 1024))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := nc.Write(request); err != nil {
					b.Fatal(err)
				}
				if err := skipMessage(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

var gibibyte = flag.Bool("gibibyte", false, "upload 1 GiB through a proxy in a process of its own, and look at its memory")

// childEnv makes the test binary be that process: its value is the upstream.
const childEnv = "WRIT_PROXY_TEST_UPSTREAM"

func TestMain(m *testing.M) {
	upstream := os.Getenv(childEnv)
	if upstream == "" {
		os.Exit(m.Run())
	}
	p, err := proxy.New(proxy.Config{
		Routes: []route.Route{{Resource: "r", Trusted: true, Upstream: "up"}}, Upstreams: []proxy.Upstream{{Name: "up", URL: upstream}},
	}, newLightKeeper(), nil)
	if err != nil {
		panic(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr())
	panic(p.Server("").Serve(listener))
}

// TestGibibyteUpload needs -gibibyte.
func TestGibibyteUpload(t *testing.T) {
	if !*gibibyte {
		t.Skip("pass -args -gibibyte to run it")
	}
	const length = 1 << 30
	received := make(chan int64, 1)
	upstream := serve(t, &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		received <- n
	})})
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childEnv+"=http://"+upstream)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	}()
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequest("PUT", "http://"+strings.TrimSpace(address)+"/big", io.LimitReader(zeros{}, length))
	if err != nil {
		t.Fatal(err)
	}
	r.ContentLength = length
	r.Header.Set("Writ-Token", "1.5")
	begin := time.Now()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if n := <-received; n != length || resp.StatusCode != 200 {
		t.Fatalf("%s, %d bytes arrived", resp.Status, n)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", child.Process.Pid))
	if err != nil {
		t.Skip(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	peak, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("1 GiB in %s, at most %d KiB of memory", time.Since(begin).Round(time.Millisecond), peak)
	if peak >= 64<<10 {
		t.Errorf("%d KiB of memory", peak)
	}
}

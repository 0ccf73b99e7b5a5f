//go:build linux

package jepsen_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/jepsen/appends"
	"github.com/writ-io/writ/lease"
)

const (
	// writerVariable makes the test binary a writer, with this configuration.
	writerVariable  = "WRIT_JEPSEN_WRITER"
	guardedResource = "orders-db"
	// Bounds of what a writer waits for.
	readLimit, putLimit, farewellLimit = time.Second, 2500 * time.Millisecond, 3 * time.Second
	// maxAppends is how many appends a writer makes under one grant, and maxFailures how many times in a row it fails.
	maxAppends, maxFailures = 6, 5
	// One write of slowOnes asks the store to take its time over it, which is part of what W has to cover.
	slowOnes, slowLeast, slowMost = 15, slack / 5, slack * 9 / 20
	// Commands on a writer's standard input; its end has the writer finish.
	commandHold, commandGo = "hold", "go"
)

// writerConfig is what a writer is told.
type writerConfig struct {
	Name          string // unique, also among the restarts of a writer
	Endpoints     []string
	CA, Cert, Key string
	Fronts        []string // the guards, or the store itself
	TTL           time.Duration
	Seed          uint64
}

// The kinds of what a writer says.
const (
	saidGranted = "granted"
	saidRead    = "read" // it waits between reading and writing, as it was told to
	saidPut     = "put"  // it is going to send
	saidDone    = "done" // what came of it
	saidOver    = "over" // it has let go of the grant
	// saidBegun is the store's: the header of a write has come.
	saidBegun = "begun"
)

// said is what a writer says on its standard output, a line of JSON each time.
type said struct {
	Kind    string
	Writer  string
	Token   fence.Token
	Proofs  map[string]string `json:",omitempty"` // with granted, if it could be found out
	Element string            `json:",omitempty"` // with put and done
	Front   int               // with put
	Slow    bool              `json:",omitempty"` // with put: the store takes its time
	Outcome appends.Outcome   `json:",omitempty"` // with done
	Detail  string            `json:",omitempty"` // with done and over
}

// writer appends to the list whenever it holds the lease. It never asks whether it still does: once it has the writ it
// presents it until somebody refuses it, which is what the guards are there for.
type writer struct {
	config writerConfig
	client *lease.Client
	http   *http.Client
	rng    *rand.Rand
	count  int

	holdNext atomic.Bool
	goOn     chan int // by which front to write; negative: any

	mu  sync.Mutex
	out *json.Encoder // guarded by mu
}

func runWriter() int {
	w := &writer{goOn: make(chan int, 1), out: json.NewEncoder(os.Stdout)}
	err := json.Unmarshal([]byte(os.Getenv(writerVariable)), &w.config)
	if err == nil {
		err = w.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "writer:", err)
		return 1
	}
	return 0
}

func (w *writer) run() error {
	c := w.config
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w.rng = rand.New(rand.NewPCG(c.Seed, 1))
	w.http = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4, DialContext: (&net.Dialer{Timeout: readLimit}).DialContext}}
	go func() {
		defer cancel()
		w.obey()
	}()
	for ctx.Err() == nil {
		var err error
		w.client, err = lease.Dial(ctx, lease.Config{
			Endpoints: c.Endpoints, CAFile: c.CA, CertFile: c.Cert, KeyFile: c.Key, Instance: c.Name,
			AttemptTimeout: time.Second, CallTimeout: 5 * time.Second,
		})
		if err == nil {
			break
		}
		fmt.Fprintln(os.Stderr, "dial:", err)
	}
	if w.client == nil {
		return nil
	}
	defer func() { _ = w.client.Close() }()
	for ctx.Err() == nil {
		if err := w.turn(ctx); err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "turn:", err)
		}
	}
	return nil
}

// obey carries out commands until there are no more.
func (w *writer) obey() {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		command, argument, _ := strings.Cut(lines.Text(), " ")
		switch command {
		case commandHold:
			select {
			case <-w.goOn: // of an earlier time, when it did not wait
			default:
			}
			w.holdNext.Store(true)
		case commandGo:
			w.holdNext.Store(false)
			front, err := strconv.Atoi(argument)
			if err != nil {
				front = -1
			}
			select {
			case w.goOn <- front:
			default: // it was told already
			}
		}
	}
	close(w.goOn)
}

func (w *writer) say(s said) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s.Writer = w.config.Name
	if err := w.out.Encode(s); err != nil {
		panic(err) // what nobody hears of must not happen
	}
}

// turn acquires, appends a few times and lets go.
func (w *writer) turn(ctx context.Context) error {
	hold, err := w.client.Acquire(ctx, guardedResource, lease.AcquireOptions{TTL: w.config.TTL, WantWrit: true})
	if err != nil {
		return err
	}
	// What was begun is finished.
	ctx = context.WithoutCancel(ctx)
	writ, err := hold.Writ(ctx)
	if err == nil {
		w.say(said{Kind: saidGranted, Token: hold.Token(), Proofs: w.proofs(ctx, hold.Token())})
		failures := 0
		for n := 1 + w.rng.IntN(maxAppends); n > 0 && failures < maxFailures; n-- {
			outcome, again := w.append(ctx, hold.Token(), writ)
			if !again {
				break
			}
			failures++
			if outcome == appends.Acked {
				failures = 0
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, farewellLimit)
	defer cancel()
	err = errors.Join(err, hold.Release(ctx))
	w.say(said{Kind: saidOver, Token: hold.Token(), Detail: fmt.Sprint(err)})
	return err
}

// proofs finds out how the guards were proved to refuse what is older than a grant.
func (w *writer) proofs(ctx context.Context, token fence.Token) map[string]string {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	info, err := w.client.Get(ctx, guardedResource, lease.GetOptions{})
	if err != nil || info.Token != token {
		return nil
	}
	proofs := make(map[string]string)
	for _, p := range info.Proofs {
		proofs[p.Guard] = p.How.String()
	}
	return proofs
}

// append reads the list and writes it back with an element more. It returns false if nothing may be tried under this token
// any more: it is stale, or the outcome is not known, so that the write may come late.
func (w *writer) append(ctx context.Context, token fence.Token, writ string) (appends.Outcome, bool) {
	page, err := w.read(ctx)
	if err != nil {
		wait(ctx, readLimit/10)
		return appends.Refused, true
	}
	front, slow := w.rng.IntN(len(w.config.Fronts)), w.rng.IntN(slowOnes) == 0
	if w.holdNext.CompareAndSwap(true, false) {
		w.say(said{Kind: saidRead, Token: token})
		if chosen, ok := <-w.goOn; ok && chosen >= 0 {
			front, slow = chosen, false
		}
	}
	wait(ctx, time.Duration(w.rng.IntN(10))*time.Millisecond)
	w.count++
	element := fmt.Sprintf("%s-%d", w.config.Name, w.count)
	body, err := json.Marshal(storeBody{Page: page.Append(element), Token: token})
	if err != nil {
		panic(err)
	}
	url := w.config.Fronts[front] + storePath
	if slow {
		url += fmt.Sprintf("?delay=%dms", (slowLeast + time.Duration(w.rng.Int64N(int64(slowMost-slowLeast)))).Milliseconds())
	}
	w.say(said{Kind: saidPut, Token: token, Element: element, Front: front, Slow: slow})
	outcome, again, detail := w.put(ctx, url, writ, body)
	w.say(said{Kind: saidDone, Token: token, Element: element, Front: front, Outcome: outcome, Detail: detail})
	if outcome == appends.Refused {
		wait(ctx, readLimit/10)
	}
	return outcome, again
}

func (w *writer) read(ctx context.Context) (page appends.Page, err error) {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, w.config.Fronts[w.rng.IntN(len(w.config.Fronts))]+storePath, nil)
	if err != nil {
		return page, err
	}
	response, err := w.http.Do(request)
	if err != nil {
		return page, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return page, errors.New(response.Status)
	}
	return page, json.NewDecoder(response.Body).Decode(&page)
}

// put sends a write, once.
func (w *writer) put(ctx context.Context, url, writ string, body []byte) (outcome appends.Outcome, again bool, detail string) {
	ctx, cancel := context.WithTimeout(ctx, putLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPut, url, bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	request.GetBody = nil // or the transport might send it again
	request.Header.Set(fence.HeaderWrit, writ)
	response, err := w.http.Do(request)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			return appends.Refused, true, "dial"
		}
		return appends.Unknown, false, "broke"
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	var problem fence.Problem
	if err == nil && response.Header.Get("Content-Type") == fence.ProblemContentType {
		err = json.Unmarshal(answer, &problem)
	}
	switch {
	case response.StatusCode == http.StatusOK:
		return appends.Acked, true, "" // whatever became of the rest
	case err != nil:
		return appends.Unknown, false, "broke"
	case problem.Reason == fence.ReasonStaleToken:
		return appends.Refused, false, problem.Reason
	case problem.Reason == fence.ReasonUnavailable || problem.Reason == "UPSTREAM_UNREACHABLE":
		return appends.Refused, true, problem.Reason + " " + problem.Obstacle
	case response.StatusCode >= http.StatusInternalServerError:
		return appends.Unknown, false, problem.Reason
	}
	return appends.Refused, false, fmt.Sprint(response.StatusCode, " ", problem.Reason)
}

//go:build linux

package writer

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
	"github.com/writ-io/writ/jepsen/appends/store"
	"github.com/writ-io/writ/jepsen/appends/table"
	"github.com/writ-io/writ/jepsen/wait"
)

const (
	// Variable of the environment makes a program a writer, see [Main]; it holds the [Config], as JSON.
	Variable = "WRIT_JEPSEN_WRITER"
	// ReadLimit bounds a read; the others, a write and a release.
	ReadLimit, putLimit, farewellLimit = time.Second, 2500 * time.Millisecond, 3 * time.Second
	// maxAppends is how many appends a writer makes under one grant, and maxFailures how many times in a row it fails.
	maxAppends, maxFailures = 6, 5
	// maxOfTenure is the same of appends under a tenure: it is not given back, so only a refusal shows that it is over.
	maxOfTenure = 400
	// One write of slowOnes asks the store to take its time over it, which is part of what W has to cover: from a fifth of
	// it to less than a half.
	slowOnes = 15
	// Hold is the command to stop after the next read.
	Hold = "hold"
	// Go is the command to go on. The number of a front may follow, which is then written to.
	Go = "go"
)

// Config is what a writer is told.
type Config struct {
	Name          string // unique, also among the restarts of a writer
	Endpoints     []string
	CA, Cert, Key string
	Fronts        []string // the guards, or the store itself
	TTL           time.Duration
	Slack         time.Duration // W of the guards
	Seed          uint64
	// Etcd has it lock by etcd's concurrency.Mutex at Endpoints instead, without TLS. Its token is the revision of the key.
	Etcd bool
	// Postgres is the DSN of a database that keeps the list, see package table; there are no fronts then. Unfenced: it
	// compares no tokens.
	Postgres string
	Unfenced bool
	// Group is a failover group whose tenure it writes under, whenever its Region has it, until it is refused; empty: it is
	// granted a lease of its own.
	Group, Region string
	// Fresh says that no process of the region has written before.
	Fresh bool
	// Path of the list. Default: that of package store.
	Path string
}

// resource is what must be held.
func (c Config) resource() string {
	if c.Postgres != "" {
		return table.Resource
	}
	return store.Resource
}

// The kinds of what a writer says.
const (
	Granted = "granted"
	Read    = "read" // it waits between reading and writing, as it was told to
	Put     = "put"  // it is going to send
	Done    = "done" // what came of it
	Over    = "over" // it has let go of the grant
	// Begun is the store's: the header of a write has come.
	Begun = "begun"
)

// Said is what a writer says on its standard output, a line of JSON each time.
type Said struct {
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
	config Config
	lock   locker
	http   *http.Client
	list   *table.List // nil: the list is behind fronts
	rng    *rand.Rand
	count  int

	holdNext atomic.Bool
	goOn     chan int // by which front to write; negative: any

	mu  sync.Mutex
	out *json.Encoder // guarded by mu
}

// Main makes this program the writer that its environment tells of, and returns the code to exit with.
func Main() int {
	w := &writer{goOn: make(chan int, 1), out: json.NewEncoder(os.Stdout)}
	err := json.Unmarshal([]byte(os.Getenv(Variable)), &w.config)
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
	if w.config.Path == "" {
		w.config.Path = store.Path
	}
	c := w.config
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w.rng = rand.New(rand.NewPCG(c.Seed, 1))
	w.http = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4, DialContext: (&net.Dialer{Timeout: ReadLimit}).DialContext}}
	go func() {
		defer cancel()
		w.obey()
	}()
	var err error
	if c.Postgres != "" {
		if w.list, err = table.Open(ctx, c.Postgres, !c.Unfenced); err != nil {
			return err
		}
		defer w.list.Close()
	}
	if w.lock, err = w.dial(ctx); err != nil {
		return err
	}
	defer w.lock.close()
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
		case Hold:
			select {
			case <-w.goOn: // of an earlier time, when it did not wait
			default:
			}
			w.holdNext.Store(true)
		case Go:
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

func (w *writer) say(s Said) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s.Writer = w.config.Name
	if err := w.out.Encode(s); err != nil {
		panic(err) // what nobody hears of must not happen
	}
}

// turn acquires, appends a few times and lets go.
func (w *writer) turn(ctx context.Context) error {
	granted, err := w.lock.acquire(ctx)
	if err != nil {
		return err
	}
	// What was begun is finished.
	ctx = context.WithoutCancel(ctx)
	w.say(Said{Kind: Granted, Token: granted.token, Proofs: granted.proofs})
	failures := 0
	most := maxAppends
	if w.config.Group != "" {
		most = maxOfTenure
	}
	for n := 1 + w.rng.IntN(most); n > 0 && failures < maxFailures; n-- {
		outcome, again := w.append(ctx, granted.token, granted.writ)
		if outcome == appends.Unknown && granted.spoil != nil {
			granted.spoil()
		}
		if !again {
			break
		}
		failures++
		if outcome == appends.Acked {
			failures = 0
		}
	}
	ctx, cancel := context.WithTimeout(ctx, farewellLimit)
	defer cancel()
	err = granted.release(ctx)
	w.say(Said{Kind: Over, Token: granted.token, Detail: fmt.Sprint(err)})
	return err
}

// append reads the list and writes it back with an element more. It returns false if nothing may be tried under this token
// any more: it is stale, or the outcome is not known, so that the write may come late.
func (w *writer) append(ctx context.Context, token fence.Token, writ string) (appends.Outcome, bool) {
	page, err := w.read(ctx, token)
	if err != nil {
		wait.For(ctx, ReadLimit/10)
		return appends.Refused, !errors.Is(err, fence.ErrStale)
	}
	front, slow := w.rng.IntN(max(1, len(w.config.Fronts))), w.config.Slack > 0 && w.rng.IntN(slowOnes) == 0
	if w.holdNext.CompareAndSwap(true, false) {
		w.say(Said{Kind: Read, Token: token})
		if chosen, ok := <-w.goOn; ok && chosen >= 0 {
			front, slow = chosen, false
		}
	}
	wait.For(ctx, time.Duration(w.rng.IntN(10))*time.Millisecond)
	w.count++
	element := fmt.Sprintf("%s-%d", w.config.Name, w.count)
	body := store.Body{Page: page.Append(element), Token: token}
	w.say(Said{Kind: Put, Token: token, Element: element, Front: front, Slow: slow})
	outcome, again, detail := w.write(ctx, body, front, slow, writ)
	w.say(Said{Kind: Done, Token: token, Element: element, Front: front, Outcome: outcome, Detail: detail})
	if outcome == appends.Refused {
		wait.For(ctx, ReadLimit/10)
	}
	return outcome, again
}

// write sends a write, once.
func (w *writer) write(ctx context.Context, body store.Body, front int, slow bool, writ string) (outcome appends.Outcome, again bool, detail string) {
	ctx, cancel := context.WithTimeout(ctx, putLimit)
	defer cancel()
	if w.list != nil {
		return w.commit(ctx, body)
	}
	data, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	url := w.config.Fronts[front] + w.config.Path
	if slow {
		url += fmt.Sprintf("?delay=%dms", (w.config.Slack/5 + time.Duration(w.rng.Int64N(int64(w.config.Slack/4)))).Milliseconds())
	}
	return w.put(ctx, url, writ, data)
}

// commit writes to the database.
func (w *writer) commit(ctx context.Context, body store.Body) (outcome appends.Outcome, again bool, detail string) {
	switch err := w.list.Write(ctx, body.Page, body.Token); {
	case err == nil:
		return appends.Acked, true, ""
	case errors.Is(err, fence.ErrStale):
		return appends.Refused, false, fence.ReasonStaleToken
	case table.Undone(err):
		return appends.Refused, true, "rolled back"
	default:
		return appends.Unknown, false, "broke"
	}
}

func (w *writer) read(ctx context.Context, token fence.Token) (page appends.Page, err error) {
	ctx, cancel := context.WithTimeout(ctx, ReadLimit)
	defer cancel()
	if w.list != nil {
		return w.list.Read(ctx, token)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, w.config.Fronts[w.rng.IntN(len(w.config.Fronts))]+w.config.Path, nil)
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

// put sends a write to a front.
func (w *writer) put(ctx context.Context, url, writ string, body []byte) (outcome appends.Outcome, again bool, detail string) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPut, url, bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	request.GetBody = nil // or the transport might send it again
	if writ != "" {
		request.Header.Set(fence.HeaderWrit, writ)
	}
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

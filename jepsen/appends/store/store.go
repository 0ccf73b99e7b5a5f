//go:build linux

package store

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/writ-io/writ/fence"
	"github.com/writ-io/writ/jepsen/appends"
	"github.com/writ-io/writ/jepsen/wait"
)

const (
	// Variable of the environment makes a program a store, see [Main]; it holds the [Config], as JSON.
	Variable = "WRIT_JEPSEN_STORE"
	// Port that a store listens on.
	Port = "9000"
	// Path is the key of the list, and the route of the guards.
	Path = "/orders"
	// Resource is what whoever writes must hold.
	Resource = "orders-db"
	// stallTick is how often a process looks whether it runs, and stallNote how late it must be to be told.
	stallTick = 50 * time.Millisecond
	stallNote = 300 * time.Millisecond
)

// Config is what a store is told.
type Config struct {
	Listen string
	// Atomic has it compare tokens itself, in the operation, as a storage can that knows of them.
	Atomic bool
	// Postgres is the DSN of a database that keeps the list, with a fence.
	Postgres string
	// Path of the list. Default: [Path].
	Path string
}

// Line is what a store says on its standard output.
type Line struct {
	Applied *appends.Applied `json:",omitempty"`
	// Begun is the token of a write whose header has come.
	Begun fence.Token `json:",omitempty"`
	// Stale is the token of a write that an atomic store refused.
	Stale fence.Token `json:",omitempty"`
	// Stall is for how long the process did not run.
	Stall time.Duration `json:",omitempty"`
}

// Body is what writers send.
type Body struct {
	Page  appends.Page
	Token fence.Token
}

// storage keeps one list. Nothing else happens to it while it is written.
type storage interface {
	read(ctx context.Context) (appends.Page, error)
	// write returns an error that is fence.ErrStale if it compares tokens.
	write(ctx context.Context, page appends.Page, presented fence.Token) error
}

// memory writes whatever it is given, unless it is atomic.
type memory struct {
	atomic bool

	mu      sync.Mutex
	page    appends.Page // guarded by mu; never changed, only replaced
	highest fence.Token  // guarded by mu
}

func (m *memory) read(context.Context) (appends.Page, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.page, nil
}

func (m *memory) write(_ context.Context, page appends.Page, presented fence.Token) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.atomic && presented < m.highest {
		return &fence.StaleError{Resource: Resource, Have: presented, Floor: m.highest}
	}
	m.page, m.highest = page, max(m.highest, presented)
	return nil
}

// server serves a storage, and says in which order it has written.
type server struct {
	storage storage
	writing sync.Mutex // held over a write and its line

	mu  sync.Mutex
	out *json.Encoder // guarded by mu
}

// Main makes this program the store that its environment tells of. It returns when it cannot be one, with the code to exit
// with.
func Main() int {
	err := serve()
	fmt.Fprintln(os.Stderr, "store:", err)
	return 1
}

func serve() error {
	var config Config
	if err := json.Unmarshal([]byte(os.Getenv(Variable)), &config); err != nil {
		return err
	}
	s := &server{storage: &memory{atomic: config.Atomic}, out: json.NewEncoder(os.Stdout)}
	if config.Postgres != "" {
		database, err := openPostgres(context.Background(), config.Postgres)
		if err != nil {
			return err
		}
		s.storage = database
	}
	if config.Path == "" {
		config.Path = Path
	}
	go watchStalls(func(late time.Duration) { s.say(Line{Stall: late}) })
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+config.Path, s.get)
	mux.HandleFunc("PUT "+config.Path, s.put)
	server := &http.Server{Addr: config.Listen, Handler: mux, ReadHeaderTimeout: time.Minute}
	return server.ListenAndServe()
}

// watchStalls tells whenever this process did not run for a while. It never returns.
func watchStalls(tell func(time.Duration)) {
	tick := time.NewTicker(stallTick)
	for last := time.Now(); ; {
		<-tick.C
		now := time.Now()
		if late := now.Sub(last) - stallTick; late > stallNote {
			tell(late)
		}
		last = now
	}
}

// delay takes its time if the request asks for it, also when whoever asked has gone.
func (s *server) delay(r *http.Request) {
	span, _ := time.ParseDuration(r.URL.Query().Get("delay")) // 0 if there is none
	wait.For(context.WithoutCancel(r.Context()), span)
}

func (s *server) get(w http.ResponseWriter, r *http.Request) {
	s.delay(r)
	page, err := s.storage.read(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(page) // the reader has gone
}

func (s *server) put(w http.ResponseWriter, r *http.Request) {
	presented, err := PresentedToken(r)
	s.say(Line{Begun: presented})
	data, failed := io.ReadAll(r.Body)
	var body Body
	if err = errors.Join(err, failed); err == nil {
		err = json.Unmarshal(data, &body)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.delay(r)
	switch err := s.apply(body, presented); {
	case errors.Is(err, fence.ErrStale):
		http.Error(w, err.Error(), http.StatusPreconditionFailed)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func (s *server) say(line Line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.out.Encode(line); err != nil {
		panic(err) // what nobody hears of must not happen
	}
}

// apply writes, and says so before anybody is answered. Whoever asked may have gone, which stops nothing.
func (s *server) apply(body Body, presented fence.Token) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	err := s.storage.write(context.Background(), body.Page, presented)
	switch {
	case err == nil:
		s.say(Line{Applied: &appends.Applied{Page: body.Page, Token: body.Token, Presented: presented}})
	case errors.Is(err, fence.ErrStale):
		s.say(Line{Stale: presented})
	}
	return err
}

// PresentedToken reads the token of the writ that came with a request, without verifying it: the guards have. 0: there is
// none.
func PresentedToken(r *http.Request) (fence.Token, error) {
	writ := r.Header.Get(fence.HeaderWrit)
	if writ == "" {
		return 0, nil
	}
	_, rest, _ := strings.Cut(writ, ".")
	payload, _, _ := strings.Cut(rest, ".")
	data, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return 0, err
	}
	var claims struct {
		Token string `json:"tok"`
	}
	if err := json.Unmarshal(data, &claims); err != nil {
		return 0, err
	}
	return fence.ParseToken(claims.Token)
}

package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// store is a file behind HTTP: POST appends a line, GET answers them all. It knows nothing of tokens and takes every write
// that reaches it.
type store struct {
	server   *http.Server
	listener net.Listener
	serving  sync.WaitGroup

	mu   sync.Mutex
	file *os.File // guarded by mu
}

const (
	// maxLineBytes bounds a line, and maxFileBytes what is read back.
	maxLineBytes = 4096
	maxFileBytes = 1 << 20
	// requestTimeout bounds a request to the store or to the guard before it; a guard may make it wait for its turn.
	requestTimeout = 10 * time.Second
)

// newStore serves a new file at path, on a loopback port.
func newStore(path string) (s *store, err error) {
	s = &store{}
	if s.file, err = os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR|os.O_APPEND, 0o600); err != nil {
		return nil, err
	}
	if s.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	s.server = &http.Server{Handler: s, ReadTimeout: requestTimeout}
	s.serving.Go(func() { _ = s.server.Serve(s.listener) }) // ends with close
	return s, nil
}

func (s *store) url() string { return "http://" + s.listener.Addr().String() }

func (s *store) close() error {
	err := s.server.Close()
	s.serving.Wait()
	return errors.Join(err, s.file.Close())
}

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var err error
	switch r.Method {
	case http.MethodGet:
		err = s.read(w)
	case http.MethodPost:
		err = s.add(http.MaxBytesReader(w, r.Body, maxLineBytes))
	default:
		http.Error(w, "use GET or POST", http.StatusMethodNotAllowed)
		return
	}
	if bad := (errLine)(""); errors.As(err, &bad) {
		http.Error(w, err.Error(), http.StatusBadRequest)
	} else if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// errLine says what is wrong with a line.
type errLine string

func (e errLine) Error() string { return string(e) }

func (s *store) add(body io.Reader) error {
	line, err := io.ReadAll(body)
	if err != nil {
		return errLine(err.Error())
	}
	if len(line) == 0 || bytes.ContainsAny(line, "\r\n") {
		return errLine("send one line")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err = s.file.Write(append(line, '\n'))
	return err
}

func (s *store) read(w io.Writer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	_, err := io.Copy(w, s.file)
	return err
}

// readLines reads what the store at url holds.
func readLines(ctx context.Context, url string) ([]string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("reading the file is answered %s", resp.Status)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxFileBytes))
	if err != nil {
		return nil, err
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		lines = append(lines, strings.TrimSuffix(line, "\n"))
	}
	return lines, nil
}

// do sends a request over a connection of its own: one that was kept would not outlive a pause.
func do(req *http.Request) (*http.Response, error) {
	req.Close = true
	return (&http.Client{Timeout: requestTimeout}).Do(req)
}

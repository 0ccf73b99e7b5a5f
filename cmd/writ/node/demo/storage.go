package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/writ-io/writ/fence"
)

// storage is a file that remembers the highest token it has seen and takes no write under a lower one. It stands in for a
// guard: it shows the comparison, and neither keeps its floor across restarts nor knows who presents a token.
type storage struct {
	server   *http.Server
	listener net.Listener
	serving  sync.WaitGroup

	mu      sync.Mutex
	file    *os.File    // guarded by mu
	floor   fence.Token // guarded by mu. Invariant: never decreases.
	refused int         // guarded by mu
}

// written is one line of the file.
type written struct {
	Token fence.Token `json:"token"`
	Text  string      `json:"text"`
}

// answer is what a write gets.
type answer struct {
	Taken bool        `json:"taken"`
	Floor fence.Token `json:"floor"`
}

const (
	tokenHeader   = "Writ-Token"
	maxWriteBytes = 4096
)

// newStorage serves a storage over a new file at path, on a loopback port.
func newStorage(path string) (s *storage, err error) {
	s = &storage{}
	if s.file, err = os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR|os.O_APPEND, 0o600); err != nil {
		return nil, err
	}
	if s.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	s.server = &http.Server{Handler: s, ReadTimeout: 5 * time.Second}
	s.serving.Go(func() { _ = s.server.Serve(s.listener) }) // ends with close
	return s, nil
}

func (s *storage) url() string { return "http://" + s.listener.Addr().String() + "/" }

func (s *storage) close() error {
	err := s.server.Close()
	s.serving.Wait()
	return errors.Join(err, s.file.Close())
}

func (s *storage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token, err := fence.ParseToken(r.Header.Get(tokenHeader))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxWriteBytes))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a, err := s.write(token, string(text))
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	case !a.Taken:
		w.WriteHeader(http.StatusConflict)
	}
	_ = json.NewEncoder(w).Encode(a) // whoever has gone needs no answer
}

// write takes a line unless a higher token has been seen.
func (s *storage) write(token fence.Token, text string) (answer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if token < s.floor {
		s.refused++
		return answer{Floor: s.floor}, nil
	}
	s.floor = token
	line, err := json.Marshal(written{token, text})
	if err != nil {
		return answer{}, err
	}
	_, err = s.file.Write(append(line, '\n'))
	return answer{Taken: err == nil, Floor: s.floor}, err
}

// refusals counts the writes that were not taken.
func (s *storage) refusals() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused
}

// lines reads the file back.
func (s *storage) lines() ([]written, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	var all []written
	for decoder := json.NewDecoder(s.file); ; {
		var w written
		if err := decoder.Decode(&w); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, w)
	}
}

// put writes to the storage at url, as any client of it does.
func put(ctx context.Context, url string, token fence.Token, text string) (a answer, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(text))
	if err != nil {
		return a, err
	}
	req.Header.Set(tokenHeader, token.Decimal())
	req.Close = true // a connection that was kept would not outlive a pause
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return a, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusConflict {
		return a, fmt.Errorf("the storage answers %s", resp.Status)
	}
	return a, json.NewDecoder(resp.Body).Decode(&a)
}

//go:build linux

package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/writ-io/writ/jepsen/cluster"
)

// Goroutines asks every node and every guard how many goroutines it has, by party.
func (l *Lab) Goroutines(ctx context.Context) (map[string]int, error) {
	all := make(map[string]int)
	for i, region := range cluster.Regions {
		text, err := l.Nodes.Metrics(ctx, i, l.Net.Dial(region))
		if err == nil {
			all[region], err = goroutinesIn(text)
		}
		if err != nil {
			return nil, fmt.Errorf("lab: goroutines of %s: %w", region, err)
		}
	}
	for i := range l.Guards {
		text, err := l.AskGuard(ctx, i, "/metrics")
		if err == nil {
			all[Guard(i)], err = goroutinesIn(text)
		}
		if err != nil {
			return nil, fmt.Errorf("lab: goroutines of %s: %w", Guard(i), err)
		}
	}
	return all, nil
}

// goroutinesIn reads the metric.
func goroutinesIn(text []byte) (int, error) {
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		if count, ok := strings.CutPrefix(lines.Text(), "go_goroutines "); ok {
			return strconv.Atoi(count)
		}
	}
	return 0, errors.New("there is no go_goroutines among the metrics")
}

// maxAnswer bounds what a guard may answer, in bytes.
const maxAnswer = 4 << 20

// AskGuard gets a path of a guard's admin listener, from where it runs, so that no cut is between.
func (l *Lab) AskGuard(ctx context.Context, guard int, path string) ([]byte, error) {
	dial := l.Net.Dial(Guard(guard))
	transport := &http.Transport{
		DisableKeepAlives: true, // a guard that was started again has nothing of it
		DialContext:       func(ctx context.Context, _, address string) (net.Conn, error) { return dial(ctx, address) },
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+GuardAdmin+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %s", response.Status)
	}
	return io.ReadAll(io.LimitReader(response.Body, maxAnswer))
}

package etcd

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/zap"
)

// recorder keeps what is logged.
type recorder struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (r *recorder) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(b)
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.String()
}

func (r *recorder) logger(level hclog.Level) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Level: level, Output: r})
}

func TestLogLevels(t *testing.T) {
	say := func(l *zap.Logger) {
		l.Debug("at debug")
		l.Info("at info")
		l.Warn("at warn")
		l.Warn("prober detected unhealthy status")
		l.Error("at error")
	}
	for level, want := range map[hclog.Level][]string{
		hclog.Trace: {"[TRACE] at debug", "[DEBUG] at info", "[WARN]  at warn", "[DEBUG] prober", "[ERROR] at error"},
		hclog.Debug: {"[DEBUG] at info", "[WARN]  at warn", "[DEBUG] prober", "[ERROR] at error"},
		hclog.Info:  {"[WARN]  at warn", "[ERROR] at error"},
		hclog.Error: {"[ERROR] at error"},
		hclog.Off:   nil,
	} {
		out := &recorder{}
		say(newZap(out.logger(level), newTrip("")))
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if out.String() == "" {
			lines = nil
		}
		if len(lines) != len(want) {
			t.Errorf("%v: got\n%swant %d lines", level, out, len(want))
			continue
		}
		for i, line := range lines {
			if !strings.Contains(line, want[i]) {
				t.Errorf("%v: line %q, want %q", level, line, want[i])
			}
		}
	}
}

func TestLogFields(t *testing.T) {
	out := &recorder{}
	newZap(out.logger(hclog.Debug), newTrip("")).With(zap.String("member", "n0")).Named("raft").Warn("slow",
		zap.Duration("took", 1500*time.Millisecond), zap.Int("entries", 7), zap.Error(errors.New("disk")), zap.Skip())
	for _, want := range []string{"slow:", "member=n0", "took=1.5s", "entries=7", "error=disk"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q lacks %q", out, want)
		}
	}
}

// A healthy cluster says nothing at the default level, from its start to its end.
func TestAHealthyClusterIsQuiet(t *testing.T) {
	out := &recorder{}
	c := newCluster(t, 3, func(cfg *Config) { cfg.Logger = out.logger(hclog.Info) })
	commit(t, c.leader(), claim(t, c.leader()), write("a", "1"))
	c.closeAll()
	c.start()
	commit(t, c.leader(), claim(t, c.leader()), write("a", "2"))
	c.closeAll()
	// A peer that goes away is worth a line, and a busy machine others.
	worth := []string{"peer became inactive", "took too long", "slow fdatasync", "heartbeat on time", "timed out"}
	for _, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		if line != "" && (strings.Contains(line, "[ERROR]") || !slices.ContainsFunc(worth, func(text string) bool { return strings.Contains(line, text) })) {
			t.Error(line)
		}
	}
}

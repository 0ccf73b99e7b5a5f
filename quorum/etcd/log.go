package etcd

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// demoted are warnings of etcd's that say nothing an operator must act on: they tell of what a Config chose, or come in
// numbers whenever a peer is away, of which the rafthttp status lines already tell.
var demoted = map[string]bool{
	"simple token is not cryptographically signed":           true,
	"prober detected unhealthy status":                       true,
	"failed to find remote peer in cluster":                  true,
	"failed to reach the peer URL":                           true,
	"failed to get version":                                  true,
	"lost TCP streaming connection with remote peer":         true,
	"closed TCP streaming connection with remote peer":       true,
	"established TCP streaming connection with remote peer":  true,
	"waiting for ReadIndex response took too long, retrying": true,
	"ignored out-of-date read index response; local node read indexes queueing up and waiting to be in sync with leader": true,
	"failed to publish local member to cluster through raft":                                                             true,
	"stopped publish because server is stopping":                                                                         true,
	"dropped internal Raft message since sending buffer is full":                                                         true,
	"skipped removing already removed peer":                                                                              true,
	"server has stopped; skipping GoAttach":                                                                              true,
	"updating storage version is skipped as no v2 data is found in the v2 store":                                         true,
	"failed to get cluster response":                                                                                     true,
	"failed to update cluster version":                                                                                   true,
	"failed to process Raft message":                                                                                     true,
	"server error":                                                                                                       true,
	"data-dir used by this member must be removed":                                                                       true,
}

// newZap answers a zap logger that writes to log: debug and info as debug, warnings and errors as such. What etcd would
// end the process for trips fatal instead.
func newZap(log hclog.Logger, fatal *trip) *zap.Logger {
	hook := fatalHook{fatal}
	return zap.New(&logCore{log: log, trip: fatal}, zap.WithFatalHook(hook), zap.WithPanicHook(hook))
}

// logCore is a zapcore.Core over an hclog.Logger.
type logCore struct {
	log    hclog.Logger
	trip   *trip
	fields []any
}

// serverError is etcd's message about an error after which a server stops, and removedText what that says of a member that
// was told by its peers that it has been removed. Nothing else tells: it may not have applied that change itself.
const (
	serverError = "server error"
	removedText = "permanently removed from the cluster"
)

// Enabled lets warnings through also where they are not logged: see serverError.
func (c *logCore) Enabled(level zapcore.Level) bool {
	return level >= zapcore.WarnLevel || c.logs(level)
}

func (c *logCore) logs(level zapcore.Level) bool {
	switch {
	case level >= zapcore.ErrorLevel:
		return c.log.IsError()
	case level == zapcore.WarnLevel:
		return c.log.IsWarn()
	case level == zapcore.InfoLevel:
		return c.log.IsDebug()
	}
	return c.log.IsTrace()
}

func (c *logCore) With(fields []zapcore.Field) zapcore.Core {
	return &logCore{log: c.log, trip: c.trip, fields: append(slices.Clone(c.fields), pairs(fields)...)}
}

func (c *logCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.logs(entry.Level) || entry.Message == serverError {
		return checked.AddCore(entry, c)
	}
	return checked
}

func (c *logCore) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	args := append(slices.Clone(c.fields), pairs(fields)...)
	if entry.Message == serverError && strings.Contains(fmt.Sprint(args...), removedText) {
		c.trip.removed.Store(true)
	}
	switch {
	case entry.Level >= zapcore.ErrorLevel:
		c.log.Error(entry.Message, args...)
	case entry.Level == zapcore.WarnLevel && !demoted[entry.Message]:
		c.log.Warn(entry.Message, args...)
	case entry.Level >= zapcore.InfoLevel:
		c.log.Debug(entry.Message, args...)
	default:
		c.log.Trace(entry.Message, args...)
	}
	return nil
}

func (c *logCore) Sync() error { return nil }

// pairs answers fields as hclog's alternating keys and values.
func pairs(fields []zapcore.Field) []any {
	if len(fields) == 0 {
		return nil
	}
	out := make([]any, 0, 2*len(fields))
	for _, field := range fields {
		enc := zapcore.NewMapObjectEncoder()
		field.AddTo(enc)
		value, ok := enc.Fields[field.Key]
		if !ok {
			continue
		}
		if d, ok := value.(time.Duration); ok {
			value = d.String()
		}
		out = append(out, field.Key, value)
	}
	return out
}

// trip is the first reason that etcd would have ended the process for.
type trip struct {
	dir string
	c   chan struct{} // closed once err is set
	// removed says that the server stopped because the member was removed. It is no failure.
	removed atomic.Bool

	mu  sync.Mutex
	err *FailedError // guarded by mu
	// unwind says that a goroutine which trips ends with its deferred calls run, as while the member opens. Later it
	// is parked for good instead: deferred calls could write what was never decided. Guarded by mu.
	unwind bool
}

func newTrip(dir string) *trip { return &trip{dir: dir, c: make(chan struct{}), unwind: true} }

func (t *trip) set(message string, cause error) (unwind bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		t.err = &FailedError{Dir: t.dir, Message: message, Cause: cause}
		close(t.c)
	}
	return t.unwind
}

func (t *trip) park() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unwind = false
}

// reason answers nil if nothing tripped.
func (t *trip) reason() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		return nil
	}
	return t.err
}

// fatalHook takes the place of os.Exit and panic in etcd's logger. It does not return.
type fatalHook struct{ trip *trip }

func (h fatalHook) OnWrite(checked *zapcore.CheckedEntry, fields []zapcore.Field) {
	var cause error
	for _, field := range fields {
		if err, ok := field.Interface.(error); ok && field.Type == zapcore.ErrorType {
			cause = err
		} else if field.Key != "stacktrace" && cause == nil {
			cause = detail(field)
		}
	}
	if h.trip.set(checked.Message, cause) {
		runtime.Goexit()
	}
	select {}
}

// detail answers a text field as an error, for messages that say what happened in a field without an error.
func detail(field zapcore.Field) error {
	if field.Type != zapcore.StringType || field.String == "" {
		return nil
	}
	return fmt.Errorf("%s %s", field.Key, field.String)
}

package singleton

import (
	"context"
	"log/slog"
)

// LeveledLogger is a logger with a method for each level, such as an hclog.Logger of github.com/hashicorp/go-hclog.
type LeveledLogger interface {
	Debug(message string, args ...any)
	Info(message string, args ...any)
	Warn(message string, args ...any)
	Error(message string, args ...any)
}

// LoggerOf makes an slog.Logger of another one, for [Config.Logger]. Attributes become alternating keys and values, groups
// prefixes of keys. If the other one has methods IsDebug, IsInfo and so on, as hclog's have, what it would drop is not
// formatted.
func LoggerOf(l LeveledLogger) *slog.Logger { return slog.New(leveledHandler{to: l}) }

type leveledHandler struct {
	to     LeveledLogger
	prefix string
	args   []any
}

// Enabled implements slog.Handler.
func (h leveledHandler) Enabled(_ context.Context, level slog.Level) bool {
	switch {
	case level >= slog.LevelError:
		to, ok := h.to.(interface{ IsError() bool })
		return !ok || to.IsError()
	case level >= slog.LevelWarn:
		to, ok := h.to.(interface{ IsWarn() bool })
		return !ok || to.IsWarn()
	case level >= slog.LevelInfo:
		to, ok := h.to.(interface{ IsInfo() bool })
		return !ok || to.IsInfo()
	}
	to, ok := h.to.(interface{ IsDebug() bool })
	return !ok || to.IsDebug()
}

// Handle implements slog.Handler.
func (h leveledHandler) Handle(_ context.Context, r slog.Record) error {
	args := append([]any(nil), h.args...)
	r.Attrs(func(a slog.Attr) bool {
		args = appendAttr(args, h.prefix, a)
		return true
	})
	log := h.to.Debug
	switch {
	case r.Level >= slog.LevelError:
		log = h.to.Error
	case r.Level >= slog.LevelWarn:
		log = h.to.Warn
	case r.Level >= slog.LevelInfo:
		log = h.to.Info
	}
	log(r.Message, args...)
	return nil
}

// WithAttrs implements slog.Handler.
func (h leveledHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.args = append([]any(nil), h.args...)
	for _, a := range attrs {
		h.args = appendAttr(h.args, h.prefix, a)
	}
	return h
}

// WithGroup implements slog.Handler.
func (h leveledHandler) WithGroup(name string) slog.Handler {
	if name != "" {
		h.prefix += name + "."
	}
	return h
}

func appendAttr(args []any, prefix string, a slog.Attr) []any {
	value := a.Value.Resolve()
	switch {
	case a.Equal(slog.Attr{}):
		return args
	case value.Kind() != slog.KindGroup:
		return append(args, prefix+a.Key, value.Any())
	}
	if a.Key != "" {
		prefix += a.Key + "."
	}
	for _, member := range value.Group() {
		args = appendAttr(args, prefix, member)
	}
	return args
}

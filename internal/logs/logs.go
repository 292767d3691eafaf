// Package logs writes the daemon's log: structured, to standard error, with a level that may change, and without secrets.
package logs

import (
	"os"

	"github.com/go-logr/logr"
	"github.com/go-logr/zapr"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Log is a logger and the level that decides what it writes.
type Log struct {
	logr.Logger

	level zap.AtomicLevel
}

// New returns a logger that writes to standard error. Format is "json", or "console" for people.
func New(format, level string) *Log { return newLog(zapcore.Lock(os.Stderr), format, level) }

func newLog(out zapcore.WriteSyncer, format, level string) *Log {
	l := &Log{level: zap.NewAtomicLevel()}
	l.SetLevel(level)
	encoder := encoderOf(format)
	core := zapcore.NewCore(encoder, &redacting{out}, l.level)
	l.Logger = zapr.NewLogger(zap.New(core, zap.AddStacktrace(zapcore.PanicLevel)))
	return l
}

// SetLevel changes what is written from now on: debug, info, warn or error. What is none of these changes nothing.
func (l *Log) SetLevel(level string) {
	if parsed, err := zapcore.ParseLevel(level); err == nil {
		l.level.SetLevel(parsed)
	}
}

func encoderOf(format string) zapcore.Encoder {
	if format == "console" {
		c := zap.NewDevelopmentEncoderConfig()
		c.EncodeTime = zapcore.ISO8601TimeEncoder
		return zapcore.NewConsoleEncoder(c)
	}
	c := zap.NewProductionEncoderConfig()
	c.EncodeTime = zapcore.ISO8601TimeEncoder
	return zapcore.NewJSONEncoder(c)
}

// redacting takes secrets out of whole lines, whatever they came from: a message, a value, a value in a value.
type redacting struct {
	zapcore.WriteSyncer
}

// Write writes a line.
func (r *redacting) Write(line []byte) (int, error) {
	if _, err := r.WriteSyncer.Write(Redact(line)); err != nil {
		return 0, err
	}
	return len(line), nil
}

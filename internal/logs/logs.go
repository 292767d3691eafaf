// Package logs writes the daemon's log: structured, to standard error, with a level that may change, and without secrets.
package logs

import (
	"log"
	"os"
	"strings"

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

// TakeOver has what others write by the standard library's log written as lines of this one, until the function that it returns is called.
// Servers complain there of those who connect to them, which is for the level debug; of a panic they say so, too.
func (l *Log) TakeOver() (restore func()) {
	before := log.Flags()
	log.SetFlags(0)
	log.SetOutput(complaints{l.WithName("net")})
	return func() {
		log.SetFlags(before)
		log.SetOutput(os.Stderr)
	}
}

// complaints are lines of the standard library.
type complaints struct{ logr.Logger }

// Write writes a line.
func (c complaints) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	if strings.Contains(text, "panic") {
		c.Error(nil, text)
	} else {
		c.V(1).Info(text)
	}
	return len(line), nil
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

package cmd

import (
	"github.com/go-logr/logr"
	"github.com/go-logr/zapr"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"wsdaemon.dev/ws-daemon/internal/config"
)

// newLogger writes to standard error. The configuration has been validated.
func newLogger(c config.Log) logr.Logger {
	z := zap.NewProductionConfig()
	if c.Format == "console" {
		z = zap.NewDevelopmentConfig()
		z.DisableStacktrace = true
	}
	z.EncoderConfig.EncodeTime = zapcore.ISO8601TimeEncoder
	z.DisableCaller = true
	if level, err := zapcore.ParseLevel(c.Level); err == nil {
		z.Level = zap.NewAtomicLevelAt(level)
	}
	logger, err := z.Build()
	if err != nil {
		return logr.Discard()
	}
	return zapr.NewLogger(logger)
}

// Package metrics counts what the daemon does and measures what it holds, for Prometheus.
//
// No label has the name of a workspace: their number has no bound. What is measured is computed when it is asked for, from what is
// in memory, so that series go with what they are about, and a scrape waits for no disk and no server.
package metrics

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"wsdaemon.dev/ws-daemon/internal/jobs"
)

// Metrics are those of one daemon.
type Metrics struct {
	collectors []prometheus.Collector

	operations, bytes, files     *prometheus.CounterVec
	steps, stepBytes, stepFiles  *prometheus.CounterVec
	duration, wait, stepDuration *prometheus.HistogramVec
	reloads                      *prometheus.CounterVec

	store   storeMetrics
	service serviceMetrics
}

// New makes the metrics of a daemon of a version. source says how things are whenever it is asked.
func New(version string, source func() Snapshot) *Metrics {
	m := &Metrics{
		operations: operations.counter(), bytes: operationBytes.counter(), files: operationFiles.counter(),
		duration: operationDuration.histogram(), wait: jobWait.histogram(), reloads: configReload.counter(),
		steps: steps.counter(), stepBytes: stepBytes.counter(), stepFiles: stepFiles.counter(), stepDuration: stepDuration.histogram(),
		store: newStoreMetrics(), service: newServiceMetrics(),
	}
	build := buildInfo.GaugeVec()
	build.WithLabelValues(version, runtime.Version()).Set(1)
	m.collectors = append(m.store.collectors(), m.service.collectors()...)
	m.collectors = append(m.collectors, m.operations, m.bytes, m.files, m.duration, m.wait, m.reloads,
		m.steps, m.stepBytes, m.stepFiles, m.stepDuration, build, collector(source))
	return m
}

// Register puts the metrics, and those of others, into a registry. What an earlier call put there goes: a process has one daemon at a
// time.
func (m *Metrics) Register(registry prometheus.Registerer, others ...prometheus.Collector) error {
	all := slices.Concat(m.collectors, others)
	errs := make([]error, 0, len(all))
	for _, c := range all {
		err := registry.Register(c)
		if there, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
			registry.Unregister(there.ExistingCollector)
			err = registry.Register(c)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	return nil
}

// Results of operations.
const (
	success   = "success"
	failure   = "failure"
	cancelled = "cancelled"
)

// JobEnded counts a job. reason is the one word for its error.
func (m *Metrics) JobEnded(key jobs.Key, s jobs.State, reason string) {
	operation := operationOf(key)
	result, reason := endOf(s.Err, reason)
	m.operations.WithLabelValues(operation, result, reason).Inc()
	if s.Started.IsZero() {
		return // it was cancelled while it waited
	}
	m.duration.WithLabelValues(operation, result).Observe(s.Ended.Sub(s.Started).Seconds())
	m.wait.WithLabelValues(string(s.Class)).Observe(s.Started.Sub(s.Queued).Seconds())
	m.bytes.WithLabelValues(operation).Add(float64(max(0, s.Progress.BytesDone)))
	m.files.WithLabelValues(operation).Add(float64(max(0, s.Progress.FilesDone)))
}

// endOf is the result for an error, with its reason if it has one.
func endOf(err error, reason string) (string, string) {
	switch {
	case errors.Is(err, jobs.ErrCancelled), errors.Is(err, context.Canceled):
		return cancelled, ""
	case err != nil:
		return failure, reason
	default:
		return success, ""
	}
}

// Step is one that filled a workspace, or failed to.
type Step struct {
	// Source is where content came from.
	Source       string
	Files, Bytes int64
	Duration     time.Duration
}

// StepEnded counts a step. reason is the one word for its error.
func (m *Metrics) StepEnded(s Step, err error, reason string) {
	result, reason := endOf(err, reason)
	m.steps.WithLabelValues(s.Source, result, reason).Inc()
	m.stepDuration.WithLabelValues(s.Source, result).Observe(s.Duration.Seconds())
	m.stepBytes.WithLabelValues(s.Source).Add(float64(max(0, s.Bytes)))
	m.stepFiles.WithLabelValues(s.Source).Add(float64(max(0, s.Files)))
}

// operationOf is what a job does: the first word of its key; the rest is whose job it is.
func operationOf(key jobs.Key) string {
	operation, _, _ := strings.Cut(key.Op, "/")
	return operation
}

// Results of reloads.
const (
	ReloadApplied   = "applied"
	ReloadUnchanged = "unchanged"
	ReloadInvalid   = "invalid"
)

// Reloaded counts a change of the configuration file.
func (m *Metrics) Reloaded(result string) { m.reloads.WithLabelValues(result).Inc() }
